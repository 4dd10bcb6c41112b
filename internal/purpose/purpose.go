// Package purpose is the extended key usage of certificates that are for shared-altsd's machines.
package purpose

import (
	"encoding/asn1"
	"errors"
	"strconv"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// Name is how flags and rules call Dotted.
const Name = "shared-altsd"

// Dotted was made once, of the UUID b0b3a3a1-2abc-4738-8e68-d2ca9d8375d7, under the arc that is given out for such numbers without
// a register: five times 4 hexadecimal digits, then twice 6. No number has more than 24 bits; one under 2.25 would be a
// number of 128, for which Go refuses a whole certificate.
const Dotted = "1.2.840.113556.1.8000.2554.45235.41889.10940.18232.36456.13814429.8615383"

// OID returns that of Dotted.
func OID() asn1.ObjectIdentifier {
	oid, _ := Parse(Dotted)
	return oid
}

// names are the words for purposes, in lower case.
var names = map[string]string{Name: Dotted, "serverauth": "1.3.6.1.5.5.7.3.1", "clientauth": "1.3.6.1.5.5.7.3.2"}

// Named returns the purpose that a word names, in any case of its letters, "" for none.
func Named(word string) (dotted string) { return names[ascii.Lower(word)] }

// Parse reads numbers joined by dots, each below 2^31: more no certificate has that Go reads.
func Parse(dotted string) (oid asn1.ObjectIdentifier, err error) {
	const maxBytes, maxArcs = 256, 32
	bad := errors.New("it is not an OID: numbers joined by dots")
	if len(dotted) > maxBytes || strings.Count(dotted, ".") >= maxArcs {
		return nil, errors.New("it is too long for the OID of a purpose")
	}
	for arc := range strings.SplitSeq(dotted, ".") {
		n, err := strconv.ParseUint(arc, 10, 64)
		switch {
		case err != nil && !errors.Is(err, strconv.ErrRange), len(arc) > 1 && arc[0] == '0':
			return nil, bad
		case err != nil || n > 1<<31-1:
			return nil, errors.New("one of its numbers is 2^31 or more, as those under 2.25 mostly are, and no certificate " +
				"with such an OID can be read here: take one of smaller numbers")
		}
		oid = append(oid, int(n))
	}
	if len(oid) < 3 {
		return nil, errors.New("it is too short for the OID of a purpose")
	}
	if oid[0] > 2 || oid[0] < 2 && oid[1] >= 40 {
		return nil, bad
	}
	return oid, nil
}

// String returns an OID with its name, if it is ours.
func String(oid asn1.ObjectIdentifier) string {
	if s := oid.String(); s != Dotted {
		return s
	}
	return Name + " (" + Dotted + ")"
}

package certbind

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
)

// A Scope is for which of its issuer's certificates a revocation list answers: what its issuing distribution point says
// (RFC 5280, section 5.2.5). The zero value is all of them.
type Scope struct {
	// Only is "user" for leaves only, "CA" for CAs only, "" for both.
	Only string
	// Names are of the distribution point, sorted: the list answers for certificates that name one of them as a place of
	// their list (RFC 5280, section 4.2.1.13), and for all if there are none. A URI stands as it is, any other name
	// as "der:" and hexadecimal digits.
	Names []string
}

// String returns which certificates, as a clause behind "for".
func (s Scope) String() string {
	kind := "certificates"
	if s.Only != "" {
		kind = s.Only + " certificates"
	}
	if len(s.Names) == 0 {
		return kind
	}
	return kind + " whose list is at " + strings.Join(s.Names, " or ")
}

// IsAll reports whether the list is for every certificate of its issuer.
func (s Scope) IsAll() bool { return s.Only == "" && len(s.Names) == 0 }

func (s Scope) equal(o Scope) bool { return s.Only == o.Only && slices.Equal(s.Names, o.Names) }

// overlaps reports whether there may be a certificate that both are for.
func (s Scope) overlaps(o Scope) bool {
	return (s.Only == "" || o.Only == "" || s.Only == o.Only) && (len(s.Names) == 0 || len(o.Names) == 0 ||
		slices.ContainsFunc(s.Names, func(n string) bool { return slices.Contains(o.Names, n) }))
}

// covers reports whether the list is for a certificate, which is a leaf or, above it in the path, a CA.
func (s Scope) covers(cert *x509.Certificate, leaf bool) bool {
	if s.Only == "user" && !leaf || s.Only == "CA" && leaf {
		return false
	}
	if len(s.Names) == 0 {
		return true
	}
	places := listPlaces(cert)
	return slices.ContainsFunc(s.Names, func(n string) bool { return slices.Contains(places, n) })
}

// id returns what tells scopes apart, beside a key.
func (s Scope) id(key []byte) [32]byte {
	if s.IsAll() {
		return sha256.Sum256(key)
	}
	return sha256.Sum256(slices.Concat(key, []byte{0}, []byte(s.Only), []byte{0}, []byte(strings.Join(s.Names, "\x00"))))
}

var errScope = errors.New("its issuing distribution point does not parse; have the CA make it after RFC 5280, section 5.2.5")

// parseScope reads an issuing distribution point in DER. It refuses those whose lists hold less than the revocations of
// the certificates that they are for: by reasons, or of other issuers.
func parseScope(der []byte) (s Scope, err error) {
	fields, err := elements(der)
	if err != nil || len(fields) == 0 {
		return s, errScope
	}
	last := -1
	for _, f := range fields {
		if f.Class != asn1.ClassContextSpecific || f.Tag <= last {
			return s, errScope
		}
		last = f.Tag
		if f.Tag == 0 {
			if s.Names, err = pointNames(f); err != nil {
				return s, err
			}
			continue
		}
		if f.Tag == 3 {
			return s, errors.New("it holds revocations for some reasons only; use a complete list")
		}
		if len(f.Bytes) != 1 || f.IsCompound {
			return s, errScope
		}
		switch set := f.Bytes[0] != 0; {
		case f.Tag > 5:
			return s, errScope
		case !set:
		case f.Tag == 4:
			return s, errors.New("it is an indirect list, which holds revocations of other issuers; use a list of the CA's own")
		case f.Tag == 5:
			return s, errors.New("it holds attribute certificates only; use a list of machine certificates")
		case s.Only != "":
			return s, errors.New("it is for user certificates only and for CA certificates only, which is neither")
		case f.Tag == 1:
			s.Only = "user"
		default:
			s.Only = "CA"
		}
	}
	return s, nil
}

// pointNames returns the names of a DistributionPointName (section 4.2.1.13) in its field, sorted.
func pointNames(field asn1.RawValue) ([]string, error) {
	choice, err := rawValues(field.Bytes)
	if err != nil || len(choice) != 1 || choice[0].Class != asn1.ClassContextSpecific {
		return nil, errScope
	}
	if choice[0].Tag != 0 {
		return nil, errors.New("its issuing distribution point has a name relative to the issuer's; use a complete list")
	}
	all, err := rawValues(choice[0].Bytes)
	if err != nil || len(all) == 0 {
		return nil, errScope
	}
	var names []string
	for _, n := range all {
		names = append(names, placeName(n))
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// placeName writes a GeneralName, no two alike.
func placeName(n asn1.RawValue) string {
	const uri = 6
	printable := !bytes.ContainsFunc(n.Bytes, func(r rune) bool { return r <= ' ' || r > '~' })
	if n.Class == asn1.ClassContextSpecific && n.Tag == uri && printable && !bytes.HasPrefix(n.Bytes, []byte("der:")) {
		return string(n.Bytes)
	}
	return "der:" + hex.EncodeToString(n.FullBytes)
}

var oidDistributionPoints = asn1.ObjectIdentifier{2, 5, 29, 31}

// listPlaces returns the names of the places where a certificate says that its revocation list is, of lists with all
// reasons and of its own issuer; none if that does not parse.
func listPlaces(cert *x509.Certificate) []string { return slices.Concat(listPoints(cert)...) }

// listPoints is listPlaces by distribution point: the names of one are of the same list.
func listPoints(cert *x509.Certificate) (all [][]string) {
	value, ok := extension(cert, oidDistributionPoints)
	if !ok {
		return nil
	}
	points, err := elements(value)
	if err != nil {
		return nil
	}
	for _, p := range points {
		fields, err := elements(p.FullBytes)
		// Field 1 are reasons, field 2 is another issuer.
		if err != nil || len(fields) != 1 || fields[0].Class != asn1.ClassContextSpecific || fields[0].Tag != 0 {
			continue
		}
		if names, err := pointNames(fields[0]); err == nil {
			all = append(all, names)
		}
	}
	return all
}

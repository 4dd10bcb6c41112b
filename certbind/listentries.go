package certbind

import (
	"bytes"
	"cmp"
	"encoding/asn1"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sort"
)

// The entries of a list are read here and not by crypto/x509, which makes some ten times their bytes of memory of them: a
// list of few MiB, of any one CA that is trusted, would end the daemon at its bound.

// serials are the serial numbers of a list's entries, as places in them.
type serials struct {
	entries []byte
	at      []uint32 // of INTEGERs, by their numbers
}

var errEntries = errors.New("its entries do not parse; have the CA make it after RFC 5280, section 5.1.2.6")

// parseEntries reads the content of revokedCertificates. It refuses lists of which an entry would have to be read with more
// knowledge than this package has.
func parseEntries(entries []byte) (serials, error) {
	s := serials{entries: entries}
	if uint64(len(entries)) > 1<<32-1 {
		return s, errEntries
	}
	n := 0
	for b := entries; len(b) > 0; n++ {
		_, rest, ok := readDER(b, asn1.TagSequence|constructed)
		if !ok {
			return s, errEntries
		}
		b = rest
	}
	places := make([]place, 0, n)
	for b := entries; len(b) > 0; {
		entry, rest, _ := readDER(b, asn1.TagSequence|constructed)
		number, err := checkEntry(entry)
		if err != nil {
			return s, err
		}
		if number[0]&0x80 == 0 { // a negative number is no certificate's
			var first [8]byte
			copy(first[:], bytes.TrimLeft(number, "\x00"))
			places = append(places, place{binary.BigEndian.Uint64(first[:]), uint32(len(entries) - len(rest) - len(entry))})
		}
		b = rest
	}
	slices.SortFunc(places, func(a, b place) int {
		if a.first != b.first {
			return cmp.Compare(a.first, b.first)
		}
		return bytes.Compare(s.number(a.at), s.number(b.at))
	})
	s.at = make([]uint32, len(places))
	for i, p := range places {
		s.at[i] = p.at
	}
	return s, nil
}

// A place is where a number is, and its first bytes, by which most are told apart.
type place struct {
	first uint64
	at    uint32
}

// checkEntry returns the number of an entry. It refuses one that is not as RFC 5280 has it, or has a critical extension.
func checkEntry(entry []byte) (number []byte, err error) {
	number, rest, ok := readDER(entry, asn1.TagInteger)
	if !ok || !minimal(number) {
		return nil, errEntries
	}
	if _, after, ok := readDER(rest, asn1.TagUTCTime); ok { // when, which nobody asks
		rest = after
	} else if _, rest, ok = readDER(rest, asn1.TagGeneralizedTime); !ok {
		return nil, errEntries
	}
	if len(rest) == 0 {
		return number, nil
	}
	extensions, rest, ok := readDER(rest, asn1.TagSequence|constructed)
	if !ok || len(rest) > 0 {
		return nil, errEntries
	}
	return number, checkExtensions(extensions)
}

// checkExtensions refuses those of an entry if one is critical.
func checkExtensions(extensions []byte) error {
	for b := extensions; len(b) > 0; {
		extension, rest, ok := readDER(b, asn1.TagSequence|constructed)
		if !ok {
			return errEntries
		}
		b = rest
		id, value, ok := readDER(extension, asn1.TagOID)
		if !ok {
			return errEntries
		}
		if critical, after, ok := readDER(value, asn1.TagBoolean); ok {
			if len(critical) != 1 {
				return errEntries
			}
			if critical[0] != 0 {
				return fmt.Errorf("one of its entries has the critical extension %s, as in an indirect list; use a plain list of the "+
					"CA's own", oidText(id))
			}
			value = after
		}
		if _, rest, ok := readDER(value, asn1.TagOctetString); !ok || len(rest) > 0 {
			return errEntries
		}
	}
	return nil
}

// has reports whether a serial number, big-endian without leading zeros, is among them.
func (s serials) has(serial []byte) bool {
	i := sort.Search(len(s.at), func(i int) bool { return bytes.Compare(s.number(s.at[i]), serial) >= 0 })
	return i < len(s.at) && bytes.Equal(s.number(s.at[i]), serial)
}

// number returns the number at a place.
func (s serials) number(at uint32) []byte {
	number, _, _ := readDER(s.entries[at:], asn1.TagInteger)
	return bytes.TrimLeft(number, "\x00")
}

const constructed = 0x20

// readDER reads one element of a tag, of at most 4 GiB, and returns its content and what is behind it.
func readDER(b []byte, tag byte) (content, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != tag {
		return nil, nil, false
	}
	size, head := uint64(b[1]), 2
	if n := int(b[1]) - 0x80; n >= 0 {
		if n == 0 || n > 4 || len(b) < 2+n || b[2] == 0 {
			return nil, nil, false
		}
		var bytes8 [8]byte
		copy(bytes8[8-n:], b[2:2+n])
		if size, head = binary.BigEndian.Uint64(bytes8[:]), 2+n; size < 0x80 {
			return nil, nil, false
		}
	}
	if size > uint64(len(b)-head) {
		return nil, nil, false
	}
	end := head + int(size)
	return b[head:end:end], b[end:], true
}

// minimal reports whether the content of an INTEGER is as short as DER has it.
func minimal(number []byte) bool {
	return len(number) > 0 && (len(number) == 1 || !(number[0] == 0 && number[1]&0x80 == 0 || number[0] == 0xff && number[1]&0x80 != 0))
}

// oidText returns an object identifier as people write it.
func oidText(content []byte) string {
	var id asn1.ObjectIdentifier
	der, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagOID, Bytes: content})
	if err == nil {
		_, err = asn1.Unmarshal(der, &id)
	}
	if err != nil {
		return fmt.Sprintf("%x", content)
	}
	return id.String()
}

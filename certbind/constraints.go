package certbind

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"slices"
)

// Name constraints on directory names (RFC 5280, section 4.2.1.10). crypto/x509 refuses them where they are critical, and
// takes no notice of them where they are not.

var (
	oidSubjectAltName  = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidNameConstraints = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidExtKeyUsage     = asn1.ObjectIdentifier{2, 5, 29, 37}
)

// extension returns the value of an extension, and whether the certificate has it.
func extension(c *x509.Certificate, oid asn1.ObjectIdentifier) (value []byte, ok bool) {
	for _, e := range c.Extensions {
		if e.Id.Equal(oid) {
			return e.Value, true
		}
	}
	return nil, false
}

// forbidsDirectoryName reports whether the name constraints of ca forbid a directory name of the certificate: its
// subject, if that is not empty, or one among its subject alternative names. What does not parse forbids all.
func forbidsDirectoryName(ca, cert *x509.Certificate) bool {
	value, ok := extension(ca, oidNameConstraints)
	if !ok {
		return false
	}
	fields, err := elements(value)
	if err != nil {
		return true
	}
	var subtrees [2][][]byte // permitted and excluded
	for _, f := range fields {
		trees, err := rawValues(f.Bytes)
		if err != nil || f.Tag >= len(subtrees) {
			return true
		}
		for _, tree := range trees {
			base, err := elements(tree.FullBytes)
			if err != nil || len(base) == 0 {
				return true
			}
			if subtrees[f.Tag], err = appendDirectoryName(subtrees[f.Tag], base[0]); err != nil {
				return true
			}
		}
	}
	permitted, excluded := subtrees[0], subtrees[1]
	if len(permitted)+len(excluded) == 0 {
		return false
	}
	names, err := directoryNames(cert)
	return err != nil || slices.ContainsFunc(names, func(n []byte) bool {
		return underAny(n, excluded) || len(permitted) > 0 && !underAny(n, permitted)
	})
}

// underAny reports whether a directory name is one of the bases or under it. They are compared as they are encoded: the
// encoding of a name is that of its parts, outermost first, one behind another.
func underAny(name []byte, bases [][]byte) bool {
	return slices.ContainsFunc(bases, func(base []byte) bool { return bytes.HasPrefix(name, base) })
}

// directoryNames returns those of a certificate that are not empty.
func directoryNames(c *x509.Certificate) (names [][]byte, err error) {
	var subject asn1.RawValue
	if _, err := asn1.Unmarshal(c.RawSubject, &subject); err != nil {
		return nil, err
	}
	if len(subject.Bytes) > 0 {
		names = append(names, subject.Bytes)
	}
	value, ok := extension(c, oidSubjectAltName)
	if !ok {
		return names, nil
	}
	sans, err := elements(value)
	for _, san := range sans {
		if names, err = appendDirectoryName(names, san); err != nil {
			return nil, err
		}
	}
	return names, err
}

// appendDirectoryName appends what a GeneralName holds if that is a directory name.
func appendDirectoryName(names [][]byte, n asn1.RawValue) ([][]byte, error) {
	const directory = 4
	if n.Class != asn1.ClassContextSpecific || n.Tag != directory {
		return names, nil
	}
	var name asn1.RawValue
	if _, err := asn1.Unmarshal(n.Bytes, &name); err != nil {
		return nil, err
	}
	return append(names, name.Bytes), nil
}

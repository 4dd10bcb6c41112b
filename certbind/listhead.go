package certbind

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

// maxListHead bounds a list without its entries, bytes.
const maxListHead = 64 << 10

// listHead returns a list without its entries, but with the bytes that were signed, and the entries unread.
func listHead(der []byte) (head *x509.RevocationList, entries []byte, err error) {
	all, err := fewElements(der)
	if err != nil || len(all) != 3 {
		return nil, nil, notList(der)
	}
	fields, err := fewElements(all[0].FullBytes)
	if err != nil {
		return nil, nil, notList(der)
	}
	if isVersionOne(fields) {
		return nil, nil, errors.New("it is a list of version 1, which cannot say what it is for; have the CA make version 2 " +
			`(openssl: "crlnumber" in the CA's section, or "crl_extensions")`)
	}
	// Behind version, algorithm, issuer and time: the next time, the entries, the extensions, each if it is there.
	var short []byte
	rest := fields[min(4, len(fields)):]
	if len(rest) > 0 && isTime(rest[0]) {
		rest = rest[1:]
	}
	entriesAt := len(fields) - len(rest)
	if len(rest) > 0 && isSequence(rest[0]) {
		entries, rest = rest[0].Bytes, rest[1:]
	}
	if len(rest) > 0 && rest[0].FullBytes[0] == 0xa0 {
		rest = rest[1:]
	}
	if len(rest) > 0 {
		return nil, nil, notList(der)
	}
	for i, f := range fields {
		if i == entriesAt && isSequence(f) {
			continue
		}
		if short = append(short, f.FullBytes...); len(short) > maxListHead {
			return nil, nil, notList(der)
		}
	}
	if len(short)+len(all[1].FullBytes)+len(all[2].FullBytes) > maxListHead {
		return nil, nil, notList(der)
	}
	sequence := func(content []byte) []byte {
		out, _ := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: content})
		return out
	}
	head, err = x509.ParseRevocationList(sequence(slices.Concat(sequence(short), all[1].FullBytes, all[2].FullBytes)))
	if err != nil {
		return nil, nil, notList(der)
	}
	if err := acceptableSignature(head.SignatureAlgorithm); err != nil {
		return nil, nil, fmt.Errorf("%w; have the CA sign its list with a current algorithm", err)
	}
	head.Raw, head.RawTBSRevocationList = der, all[0].FullBytes
	return head, entries, nil
}

// notList returns why something is no list: what is as short as other things are that are taken for one, in their terms.
func notList(der []byte) error {
	if len(der) > maxListHead {
		return errors.New("it is not a revocation list of version 2 in PEM or DER; fetch it anew")
	}
	if _, err := x509.ParseCertificate(der); err == nil {
		return fmt.Errorf("it is not a revocation list: %w", wrongBlock("CERTIFICATE"))
	}
	if kind := derKind(der); kind != nil {
		return fmt.Errorf("it is not a revocation list: %w", kind)
	}
	_, err := x509.ParseRevocationList(der)
	if err == nil {
		err = errors.New("it has something behind its entries")
	}
	return fmt.Errorf("it is not a revocation list in PEM or DER; fetch it anew: %w", err)
}

// isVersionOne reports whether the fields are those of a list without the version field, which crypto/x509 does not read:
// algorithm, issuer, thisUpdate. A certificate's first field is its version or its serial number.
func isVersionOne(fields []asn1.RawValue) bool {
	return len(fields) >= 3 && isSequence(fields[0]) && isSequence(fields[1]) && isTime(fields[2])
}

// versionOneList reports whether der looks like such a list.
func versionOneList(der []byte) bool {
	all, err := fewElements(der)
	if err != nil || len(all) != 3 {
		return false
	}
	fields, err := fewElements(all[0].FullBytes)
	return err == nil && isVersionOne(fields)
}

func isSequence(v asn1.RawValue) bool { return v.FullBytes[0] == asn1.TagSequence|constructed }

func isTime(v asn1.RawValue) bool {
	return v.FullBytes[0] == asn1.TagUTCTime || v.FullBytes[0] == asn1.TagGeneralizedTime
}

// fewElements is elements of a sequence that has no more than a list has, however long it is.
func fewElements(der []byte) (all []asn1.RawValue, err error) {
	var outer asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &outer); err != nil || len(rest) > 0 || outer.Tag != asn1.TagSequence {
		return nil, errors.New("it is not one SEQUENCE")
	}
	for b := outer.Bytes; len(b) > 0; {
		var e asn1.RawValue
		if b, err = asn1.Unmarshal(b, &e); err != nil {
			return nil, err
		}
		if all = append(all, e); len(all) > 8 {
			return nil, errors.New("it has too many elements")
		}
	}
	return all, nil
}

package certbind

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
)

// byteOrderMark is what editors of Windows put before UTF-8. It would hide the block behind it from encoding/pem.
var byteOrderMark = []byte("\ufeff")

// pemBlocks returns the PEM blocks of a file. Text between blocks is a comment, but a block that does not decode is an
// error: encoding/pem would skip it, and a CA or a certificate of the chain would be missing without a word.
func pemBlocks(data []byte) ([]*pem.Block, error) {
	var blocks []*pem.Block
	for part := range bytes.SplitSeq(data, byteOrderMark) {
		for {
			var b *pem.Block
			if b, part = pem.Decode(part); b == nil {
				break
			}
			blocks = append(blocks, b)
		}
	}
	begins := bytes.Count(data, []byte("-----BEGIN "))
	if begins == 0 {
		return nil, notPEM(data)
	}
	if begins == len(blocks) {
		return blocks, nil
	}
	wipeKeyBlocks(blocks)
	switch {
	case bytes.Contains(data, []byte("----------BEGIN ")):
		return nil, errors.New("an END line of the file runs into the next BEGIN line, as where files without a line break at " +
			`their end were joined; break it with "sed 's/-----BEGIN/\n-----BEGIN/g' FILE > NEW"`)
	case bytes.Contains(data, []byte(`-----\n`)):
		return nil, errors.New(`the file's line breaks are written as "\n", as in a variable; write them out with ` +
			`"printf '%b' "$(cat FILE)" > NEW"`)
	case bytes.Count(data, []byte("\n")) < 2*begins:
		return nil, errors.New("the file's line breaks are missing, as where a variable was written without quotes; copy it anew " +
			"with its lines")
	}
	return nil, fmt.Errorf("%d of the %d PEM blocks in the file are damaged; copy the file anew", begins-len(blocks), begins)
}

// notPEM returns what a file is that holds no PEM block, and what makes one of it.
func notPEM(data []byte) error {
	text := bytes.TrimPrefix(data, byteOrderMark)
	switch {
	case len(bytes.TrimSpace(text)) == 0:
		return errors.New("the file is empty")
	case bytes.HasPrefix(data, []byte("\xff\xfe")), bytes.HasPrefix(data, []byte("\xfe\xff")),
		bytes.Contains(data, []byte("-\x00-\x00-")):
		return errors.New(`the file is in UTF-16, as some programs of Windows write; convert it with ` +
			`"iconv -f UTF-16 -t ASCII FILE > NEW"`)
	case bytes.HasPrefix(data, []byte("\xfe\xed\xfe\xed")):
		return errors.New("the file is a Java keystore; convert it with " +
			`"keytool -importkeystore -srckeystore FILE -destkeystore P12 -deststoretype PKCS12" and ` + fromPKCS12("P12"))
	case data[0] == 0x30:
		if err := derKind(data); err != nil {
			return err
		}
	}
	return errors.New(`the file holds no PEM block ("-----BEGIN ...") and is nothing else that is known here; give the file ` +
		"that the CA made, in PEM")
}

func fromPKCS12(file string) string {
	return `"umask 077; openssl pkcs12 -in ` + file + ` -nodes -out NEW", which asks for its passphrase`
}

// derKind returns what a file in DER is, nil if that cannot be told.
func derKind(der []byte) error {
	all, err := elements(der)
	if err != nil || len(all) < 2 {
		return nil
	}
	inner, _ := elements(all[1].FullBytes)
	algorithm := len(inner) > 0 && inner[0].Tag == asn1.TagOID
	switch first := all[0]; {
	case first.Tag == asn1.TagOID: // ContentInfo
		return errors.New(`the file is PKCS #7 in DER; convert it with ` +
			`"openssl pkcs7 -inform DER -print_certs -in FILE -out NEW"`)
	case first.Tag == asn1.TagInteger && bytes.Equal(first.Bytes, []byte{3}) && algorithm:
		return errors.New("the file is PKCS #12 (.p12, .pfx); convert it with " + fromPKCS12("FILE"))
	case first.Tag == asn1.TagInteger: // PKCS #8, PKCS #1, SEC 1
		return errors.New(`the file is a private key in DER; convert it with ` +
			`"umask 077; openssl pkey -inform DER -in FILE -out NEW"`)
	case len(all) == 2 && all[1].Tag == asn1.TagOctetString:
		return errors.New(`the file is an encrypted private key in DER, and a daemon has nobody to ask for the passphrase; ` +
			`decrypt it with "umask 077; openssl pkcs8 -inform DER -in FILE -out NEW"`)
	case len(all) != 3 || !algorithm:
		return nil
	}
	if _, err := x509.ParseCertificateRequest(der); err == nil {
		return wrongBlock("CERTIFICATE REQUEST")
	}
	if _, err := x509.ParseRevocationList(der); err == nil || versionOneList(der) {
		return wrongBlock("X509 CRL")
	}
	return errors.New(`the file is a certificate in DER; convert it with "openssl x509 -inform DER -in FILE -out NEW"`)
}

// wrongBlock returns what a PEM block is that does not belong where it is, and what to do about it.
func wrongBlock(kind string) error {
	switch kind {
	case "CERTIFICATE":
		return errors.New("it holds a CERTIFICATE, which does not belong among revocation lists")
	case "CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST":
		return errors.New("it holds a CERTIFICATE REQUEST; take the certificate that the CA made of that in its place")
	case "X509 CRL":
		return errors.New("it holds a revocation list, which does not belong among certificates")
	case "PKCS7", "CMS":
		return fmt.Errorf(`it holds a PEM block of type %q; convert it with "openssl pkcs7 -print_certs -in FILE -out NEW"`,
			kind)
	case "TRUSTED CERTIFICATE", "X509 CERTIFICATE":
		return fmt.Errorf(`it holds a PEM block of type %q; convert it with "openssl x509 -in FILE -out NEW"`, kind)
	}
	return fmt.Errorf("it holds a PEM block of type %q; remove it", kind)
}

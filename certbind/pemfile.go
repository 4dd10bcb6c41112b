package certbind

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
)

// pemBlocks returns the PEM blocks of a file. Text between blocks is a comment, but a block that does not decode is an
// error: encoding/pem would skip it, and a CA or a certificate of the chain would be missing without a word.
func pemBlocks(data []byte) ([]*pem.Block, error) {
	var blocks []*pem.Block
	rest := data
	for {
		var b *pem.Block
		b, rest = pem.Decode(rest)
		if b == nil {
			break
		}
		blocks = append(blocks, b)
	}
	begins := bytes.Count(data, []byte("-----BEGIN "))
	switch {
	case begins == 0 && len(bytes.TrimSpace(data)) == 0:
		return nil, errors.New("the file is empty")
	case begins == 0:
		return nil, errors.New(`the file holds no PEM block ("-----BEGIN ..."); if it is DER, convert it with ` +
			`"openssl x509 -inform der"`)
	case begins != len(blocks):
		wipeKeyBlocks(blocks)
		return nil, fmt.Errorf("%d of the %d PEM blocks in the file are damaged; copy the file anew",
			begins-len(blocks), begins)
	}
	return blocks, nil
}

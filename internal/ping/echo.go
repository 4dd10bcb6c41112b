package ping

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"

	"github.com/shared-altsd/shared-altsd/internal/cli"
)

// After the handshake ping sends messageSize random bytes. pong sends the same back, then one byte n and n bytes with
// the name that it knows ping's account by.
const messageSize = 32

// echo sends a message to pong and back, and returns the name that pong has for this account.
func echo(conn io.ReadWriter) (seenAs string, err error) {
	sent := make([]byte, messageSize)
	rand.Read(sent)
	if _, err := conn.Write(sent); err != nil {
		return "", err
	}
	got := make([]byte, messageSize+1)
	if _, err := io.ReadFull(conn, got); err != nil {
		return "", err
	}
	if !bytes.Equal(got[:messageSize], sent) {
		return "", errors.New("other bytes came back than were sent")
	}
	name := make([]byte, got[messageSize])
	if _, err := io.ReadFull(conn, name); err != nil {
		return "", err
	}
	return cli.OneLine(string(name)), nil
}

// reply sends a message of ping's back, and the name of its account.
func reply(conn io.ReadWriter, name string) error {
	b := make([]byte, messageSize, messageSize+256)
	if _, err := io.ReadFull(conn, b); err != nil {
		return err
	}
	name = name[:min(len(name), 255)]
	_, err := conn.Write(append(append(b, byte(len(name))), name...))
	return err
}

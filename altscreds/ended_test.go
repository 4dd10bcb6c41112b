package altscreds

import (
	"errors"
	"net"
	"testing"
)

// openConn is a socket that takes what is written, however often it is closed.
type openConn struct{ net.Conn }

func (openConn) Close() error                { return nil }
func (openConn) Write(b []byte) (int, error) { return len(b), nil }

// TestRule49EndedBeforeItIsClosed: to close a connection may take a while, in which nothing more is written; and what the
// program closed first is not ended.
func TestRule49EndedBeforeItIsClosed(t *testing.T) {
	for _, closed := range []bool{false, true} {
		rec, err := newRecord(openConn{}, true, make([]byte, keySize), 0, nil)
		if err != nil {
			t.Fatal(err)
		}
		c := &Conn{raw: openConn{}, rec: rec}
		c.done.Store(true)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if closed {
			c.Close()
		}
		c.endWith(&EndedError{Reason: ReasonDeniedByPolicy})
		_, err = c.Write([]byte("x"))
		if _, ended := errors.AsType[*EndedError](err); ended == closed {
			t.Errorf("closed by the program %v: %v", closed, err)
		}
	}
}

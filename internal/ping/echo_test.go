package ping

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

func TestEcho(t *testing.T) {
	for _, tt := range []struct{ name, want string }{
		{"alice@a.test", "alice@a.test"},
		{"a\nb\x1b", "a; b?"},
		{strings.Repeat("x", 300), strings.Repeat("x", 255)},
	} {
		here, there := net.Pipe()
		done := make(chan error, 1)
		go func() { done <- reply(there, tt.name) }()
		seenAs, err := echo(here)
		if err := errors.Join(err, <-done); err != nil || seenAs != tt.want {
			t.Errorf("%q: %q %v", tt.name, seenAs, err)
		}
	}
}

func TestEchoOfOtherBytes(t *testing.T) {
	here, there := net.Pipe()
	go func() {
		io.ReadFull(there, make([]byte, messageSize))
		there.Write(make([]byte, messageSize+1))
	}()
	if _, err := echo(here); err == nil || !strings.Contains(err.Error(), "other bytes") {
		t.Error(err)
	}
}

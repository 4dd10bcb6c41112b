package altscreds_test

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/handed"
	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/service"
)

// message1 returns the first frame of a client's handshake, which serves anybody who has seen it.
func message1(t *testing.T, socket string) []byte {
	t.Helper()
	a, b := testnet.Pair(t)
	c := altscreds.Client(a, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: socket, TargetMachines: []string{"node2.example.com"}})
	done := make(chan error, 1)
	go func() { done <- c.Handshake() }()
	m1 := make([]byte, 1240)
	if _, err := io.ReadFull(b, m1); err != nil {
		t.Fatal(err)
	}
	b.Close()
	<-done
	return m1
}

// Rule 39: who replays message 1, and is silent then, keeps nobody from a server of altscreds, though the daemon, which
// has places enough, would let each go on for its whole time.
func TestRule39ReplaysGiveWay(t *testing.T) {
	cs := daemon(t, "node1.example.com", daemonOptions{user: "bob"})
	ss := daemon(t, "node2.example.com", daemonOptions{service: service.Config{HandshakeTimeout: patience}})
	m1 := message1(t, cs)
	addr := listen(t, altscreds.ServerOptions{ApplicationProtocols: spoken, Socket: ss, Timeout: patience}, func(c *altscreds.Conn) {
		if c.Handshake() == nil {
			echo(c)
		}
	})
	for range handed.PlacesOfNetwork {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		if _, err := c.Write(m1); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 8)); err != nil { // of message 2: it has a place
			t.Fatal(err)
		}
	}
	dial(t, addr, altscreds.ClientOptions{ApplicationProtocols: spoken, Socket: cs, TargetAccounts: []string{alice2}, Timeout: 19 * time.Second})
}

package main

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/altscreds"
)

const (
	victimRate    = 20 // handshakes a second
	victimTimeout = 10 * time.Second
)

// victim does handshakes with itself at a gentle rate, and prints what it saw.
func victim(socket string, d time.Duration) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer raw.Close()
				c := altscreds.Server(raw, altscreds.ServerOptions{ApplicationProtocols: protocols, Socket: socket, DaemonUID: daemonUID, Timeout: victimTimeout})
				c.SetDeadline(time.Now().Add(victimTimeout))
				b := make([]byte, 1)
				if _, err := c.Read(b); err == nil {
					c.Write(b)
				}
			}()
		}
	}()
	once := func() error {
		raw, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return err
		}
		defer raw.Close()
		c := altscreds.Client(raw, altscreds.ClientOptions{ApplicationProtocols: protocols, Socket: socket, DaemonUID: daemonUID, Timeout: victimTimeout,
			TargetAccounts: []string{"alice@alpha.test"}})
		ctx, cancel := context.WithTimeout(context.Background(), victimTimeout)
		defer cancel()
		if err := c.HandshakeContext(ctx); err != nil {
			return err
		}
		c.SetDeadline(time.Now().Add(victimTimeout))
		if _, err := c.Write([]byte{1}); err != nil {
			return err
		}
		_, err = c.Read(make([]byte, 1))
		return err
	}
	var mu sync.Mutex
	var took []time.Duration
	var o outcome
	var wg sync.WaitGroup
	tick := time.NewTicker(time.Second / victimRate)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		o.N++
		wg.Go(func() {
			began := time.Now()
			err := once()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				o.Failed++
				if o.Failed == 1 {
					os.Stderr.WriteString("victim: " + err.Error() + "\n")
				}
				return
			}
			took = append(took, time.Since(began))
		})
	}
	wg.Wait()
	slices.Sort(took)
	at := func(q float64) float64 {
		if len(took) == 0 {
			return float64(victimTimeout.Milliseconds())
		}
		return float64(took[min(len(took)-1, int(q*float64(len(took))))].Microseconds()) / 1000
	}
	o.P50, o.P99 = at(.5), at(.99)
	return json.NewEncoder(os.Stdout).Encode(o)
}

package signer

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/companion"
)

// window is how many requests are with the signer at a time, which makes one signature after the other: what is behind these is
// not begun if it is given up.
const window = 16

// A Client is the daemon's end. It is safe for concurrent use.
type Client struct {
	path   string
	signer *companion.Client

	mu    sync.Mutex
	last  *remote // what the signer said last
	where string
}

// NewClient returns the Client of the signer at a socket, which is asked when it is needed.
func NewClient(path string) *Client {
	c := &Client{path: path, signer: companion.NewClient(path, Protocol)}
	c.signer.Window = window
	return c
}

// Key asks the signer which key it has, and returns what signs with it.
func (c *Client) Key(ctx context.Context) (certbind.StatementSigner, error) {
	a, err := c.ask(ctx, &request{operation: askPublic})
	if err != nil {
		return nil, err
	}
	public, err := x509.ParsePKIXPublicKey(a.value)
	if err == nil {
		err = certbind.AcceptableKey(public)
	}
	if err != nil {
		return nil, fmt.Errorf("the signer at %s has a public key that cannot be used: %w; give it another", c.path, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.where = a.where
	if c.last == nil || !public.(interface{ Equal(crypto.PublicKey) bool }).Equal(c.last.public) {
		c.last = &remote{c, public}
	}
	return c.last, nil
}

// Known returns what Key returned last, nil if it has never returned anything.
func (c *Client) Known() certbind.StatementSigner {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.last == nil {
		return nil
	}
	return c.last
}

// Where returns where the signer says that the key is, for people; "" if it has not said so.
func (c *Client) Where() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.where
}

// Close ends the connection to the signer.
func (c *Client) Close() error { return c.signer.Close() }

// endings say what the signer did that answers without a value; why, and what to do, is in its text.
var endings = map[outcome]string{
	notOurs:   "refuses the statement",
	tooMany:   "makes no signature now",
	keyFailed: "cannot sign",
}

// ask returns the signer's answer, which has a value.
func (c *Client) ask(ctx context.Context, r *request) (*answer, error) {
	req, err := r.encode()
	if err != nil {
		return nil, err
	}
	resp, err := c.signer.Call(ctx, req)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, fmt.Errorf("%w: see whether what holds its key works ('journalctl -u shared-altsd-signer')", err)
	}
	if err != nil {
		return nil, err
	}
	a, err := parseAnswer(r.operation, resp)
	if err != nil {
		return nil, fmt.Errorf("the signer at %s answers what cannot be read: run it and the daemon of one release: %w", c.path, err)
	}
	if a.outcome != done {
		ending := endings[a.outcome]
		if ending == "" {
			ending = fmt.Sprintf("fails (%d)", a.outcome)
		}
		return nil, fmt.Errorf("the signer at %s %s: %s", c.path, ending, a.text)
	}
	return a, nil
}

// A remote is one key of the signer's.
type remote struct {
	client *Client
	public crypto.PublicKey
}

func (r *remote) Public() crypto.PublicKey { return r.public }

func (r *remote) SignStatement(ctx context.Context, s *certbind.Statement) ([]byte, error) {
	return r.sign(ctx, &request{operation: askSign, statement: *s})
}

func (r *remote) Prove(ctx context.Context) ([]byte, error) {
	return r.sign(ctx, &request{operation: askProof})
}

func (r *remote) sign(ctx context.Context, req *request) ([]byte, error) {
	a, err := r.client.ask(ctx, req)
	if err != nil {
		return nil, err
	}
	return a.value, nil
}

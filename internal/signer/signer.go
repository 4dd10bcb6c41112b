package signer

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/fair"
	"github.com/shared-altsd/shared-altsd/internal/reports"
)

const (
	// UsualRate is how many signatures a second a Signer makes, if Config does not say, and burst how many at once after a
	// time without any: a daemon has a statement signed for each account in use, all at once when its static key changes.
	UsualRate = 50
	burst     = 1000

	// maxSkew is how far from now a statement may begin, and maxWindow how long it may be.
	maxSkew   = 10 * time.Minute
	maxWindow = 24 * time.Hour

	// maxSigning is how long one signature may take, with its wait for others.
	maxSigning = time.Minute

	// quiet is how long the same is not said again.
	quiet = 10 * time.Second
)

// Config describes a Signer.
type Config struct {
	// Key is the machine's.
	Key Key
	// Where says where the key is, as in "the TPM, handle 0x81000001": for people, at most 200 bytes.
	Where string
	// Certificates is a PEM file with the certificates that the machine's daemon has: those of the key say what is signed. It is
	// read again when it changes.
	Certificates string
	// Rate is how many signatures a second are made, UsualRate if 0.
	Rate int
	// Now is the clock, time.Now if nil.
	Now func() time.Time
	Log *slog.Logger
}

// A Signer signs the statements of one machine. It is safe for concurrent use.
type Signer struct {
	key    Key
	public []byte
	where  string
	certs  *certificates
	budget *fair.Budget[struct{}]
	now    func() time.Time
	log    *slog.Logger
	told   *reports.Every
}

// New makes a Signer. A key that no peer accepts, or without a certificate, is an error.
func New(c Config) (*Signer, error) {
	s := &Signer{key: c.Key, now: c.Now, log: c.Log, where: c.Where, told: reports.NewEvery(quiet)}
	if s.now == nil {
		s.now = time.Now
	}
	if c.Rate == 0 {
		c.Rate = UsualRate
	}
	s.budget = fair.NewBudget[struct{}](c.Rate, burst)
	if err := certbind.AcceptableKey(s.key.Public()); err != nil {
		return nil, fmt.Errorf("the key cannot be used: %w", err)
	}
	var err error
	if s.public, err = x509.MarshalPKIXPublicKey(s.key.Public()); err != nil {
		return nil, err
	}
	s.certs = &certificates{path: c.Certificates, key: s.key.Public().(interface{ Equal(crypto.PublicKey) bool }), now: s.now}
	if err := s.certs.look(); err != nil {
		return nil, fmt.Errorf("--certificates: %w", err)
	}
	return s, nil
}

// Leaf returns the certificate of the key, the one that ends last if there are several.
func (s *Signer) Leaf() *x509.Certificate { return s.certs.last() }

// Prove sees that the key signs as peers demand it, by a signature over the empty statement, which says nothing.
func (s *Signer) Prove(ctx context.Context) error {
	_, err := s.sign(ctx, nil)
	return err
}

// Handle answers a request, nil to one that breaks the protocol.
func (s *Signer) Handle(ctx context.Context, req []byte) []byte {
	r, err := parseRequest(req)
	if err != nil {
		s.say("a request could not be read: the daemon is of another release, or another program", "error", err)
		return nil
	}
	a := s.answer(ctx, r)
	return a.encode()
}

func (s *Signer) answer(ctx context.Context, r *request) *answer {
	if r.operation == askPublic {
		return &answer{value: s.public, public: true, where: s.where}
	}
	var statement []byte
	if r.operation == askSign {
		st := &r.statement
		if err := s.judge(st); err != nil {
			s.say("a statement was refused", "account", ascii.Plain(st.Account), "machine", ascii.Plain(st.Machine), "error", ascii.Plain(err.Error()))
			return &answer{outcome: notOurs, text: err.Error()}
		}
		var err error
		if statement, err = st.Marshal(); err != nil {
			return &answer{outcome: notOurs, text: err.Error()}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, maxSigning)
	defer cancel()
	if err := s.budget.Charge(ctx, struct{}{}, 1); err != nil {
		s.say("signatures are asked for faster than they are made: raise the rate, or see what the daemon does")
		return &answer{outcome: tooMany, text: "more signatures are asked for than are made in this time (--rate)"}
	}
	signature, err := s.sign(ctx, statement)
	if err != nil {
		s.say("the key does not sign", "error", ascii.Plain(err.Error()))
		return &answer{outcome: keyFailed, text: err.Error()}
	}
	if st := &r.statement; r.operation == askSign {
		s.log.Info("signed", "account", st.Account, "machine", st.Machine, "static_key", fmt.Sprintf("%x", st.StaticKey[:8]),
			"not_after", st.NotAfter.Format(time.RFC3339))
	}
	return &answer{value: signature}
}

// sign returns the signature over a statement, which is that of the key in any case: a device may have been changed for
// another.
func (s *Signer) sign(ctx context.Context, statement []byte) ([]byte, error) {
	public := s.key.Public()
	signature, err := certbind.SignBy(public, statement, func(digest []byte, opts crypto.SignerOpts) ([]byte, error) {
		return s.key.Sign(ctx, digest, opts)
	})
	if err == nil && !certbind.ValidSignature(public, statement, signature) {
		err = errors.New("what the device returns is no signature of the key: see whether it is the one that the signer began with, " +
			"and start the signer again")
	}
	return signature, err
}

// judge refuses every statement that this machine's daemon has no need of now, whoever asks.
func (s *Signer) judge(st *certbind.Statement) error {
	leaf, err := s.certs.of(st.Leaf)
	if err != nil {
		return err
	}
	if names := certbind.MachineNames(leaf); !slices.Contains(names, st.Machine) {
		return fmt.Errorf("the statement is about a machine that is none of the names of the certificate (%.200q)", names)
	}
	if err := st.ValidNames(); err != nil {
		return err
	}
	now := s.now()
	switch {
	case st.NotBefore.Sub(now).Abs() > maxSkew:
		return fmt.Errorf("the statement begins at %s, and it is %s here: more than %v apart", stamp(st.NotBefore), stamp(now), maxSkew)
	case !st.NotBefore.Before(st.NotAfter), st.NotAfter.Before(now):
		return fmt.Errorf("the statement is over at %s, and it is %s here", stamp(st.NotAfter), stamp(now))
	case st.NotAfter.Sub(st.NotBefore) > maxWindow:
		return fmt.Errorf("the statement is made for more than %v", maxWindow)
	case st.NotAfter.After(leaf.NotAfter):
		return fmt.Errorf("the statement ends at %s, after the certificate (%s)", stamp(st.NotAfter), stamp(leaf.NotAfter))
	}
	return nil
}

// say logs something, unless that was done just now.
func (s *Signer) say(what string, attrs ...any) {
	s.told.Say(what, func(unsaid int) { s.log.Warn(what, append(attrs, "unsaid_before", unsaid)...) })
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

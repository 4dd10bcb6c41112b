package certbind

import (
	"crypto"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"log/slog"
	"time"
)

var errSkeleton = errors.New("certbind: not written yet")

type Credential struct {
	Chain        [][]byte
	Leaf         *x509.Certificate
	Certificates []*x509.Certificate
	Signer       crypto.Signer
}

func ParseCredential(certPEM, keyPEM []byte) (*Credential, error)       { return nil, errSkeleton }
func (c *Credential) MachineName(override, fqdn string) (string, error) { return "", errSkeleton }
func (c *Credential) Sign(statement []byte) ([]byte, error)             { return nil, errSkeleton }

type TrustConfig struct {
	CAs                             []CA
	CRLs                            []CRLFile
	RequireEKU                      asn1.ObjectIdentifier
	AllowDomainAccounts, CRLStaleOK bool
}
type CA struct {
	Names  []string
	PEM    []byte
	System bool
	Source string
}
type CRLFile struct {
	Data   []byte
	Source string
}
type Trust struct{}

func NewTrust(TrustConfig) (*Trust, error)                          { return nil, errSkeleton }
func ParseCAFlag(v string) (names []string, file string, err error) { return nil, "", errSkeleton }

type Peer struct {
	Machine, Account string
	Attributes       []Attribute
	Leaf             *x509.Certificate
	NotAfter         time.Time
	Cached           bool
}

func (p *Peer) String() string { return p.Account + "@" + p.Machine }

type MachineConfig struct {
	Credential *Credential
	Name       string
	Trust      *Trust
	Window     time.Duration
	Now        func() time.Time
	Logger     *slog.Logger
	NewStatic  func() (pub, priv [32]byte, err error)
}
type Machine struct{}

func NewMachine(MachineConfig) (*Machine, error) { return nil, errSkeleton }
func (m *Machine) Name() string                  { return "" }
func (m *Machine) Attest(account string, attrs []Attribute) (*Attestation, error) {
	return nil, errSkeleton
}

type Attestation struct {
	Public, Private [32]byte
	Identity        []byte
	NotAfter        time.Time
}

func (a *Attestation) Wipe() { clear(a.Private[:]) }
func (m *Machine) Verify(identity []byte, static [32]byte) (*Peer, error) {
	return nil, errSkeleton
}
func (m *Machine) Reload(c *Credential, t *Trust) error { return errSkeleton }
func (m *Machine) RotateStatic() error                  { return errSkeleton }

type Stats struct {
	Signatures, Verified, Cached, Failed uint64
	CacheSize, Statements                int
}

func (m *Machine) Stats() Stats            { return Stats{} }
func (m *Machine) Credential() *Credential { return nil }
func (m *Machine) Trust() *Trust           { return nil }

type Fault struct {
	What, Cure string
	Warning    bool
}

func Check(c *Credential, name string, t *Trust, now time.Time) []Fault { return nil }

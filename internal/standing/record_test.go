package standing

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"math/big"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/names"
	"github.com/shared-altsd/shared-altsd/internal/policy"
)

func hash(s string) [32]byte { return sha256.Sum256([]byte(s)) }

// record makes one with so many certificates beside the CA.
func record(certs int) *Record {
	r := &Record{ID: "00112233445566ff", Leaf: hash("leaf"), Path: certbind.Path{Machine: "alpha.example.com"},
		Connection: policy.Connection{Direction: policy.Out, Account: "alice", Service: "grpc",
			Peer: policy.Peer{Account: "bob", Machine: "alpha.example.com", Groups: []string{"dba", "two words"},
				Names: []string{"alpha.example.com", "*.example.com"}, EKUs: []string{"1.3.6.1.5.5.7.3.1"}, Key: hash("key"),
				CAName: hash("CN=ca")}}}
	p := &r.Connection.Peer
	for i := range certs {
		serial := big.NewInt(0x0a<<8 + int64(i))
		key := hash(fmt.Sprint("issuer ", i))
		r.Path.Certs = append(r.Path.Certs, certbind.PathCert{Serial: serial.Bytes(), NotAfter: time.Unix(1800000000, 0), IssuerKey: key})
		p.Certificates = append(p.Certificates, policy.Certificate{Serial: fmt.Sprintf("%x", serial), Issuer: hash("CN=ca")})
		p.CAKey = key
	}
	return r
}

// recordDNS makes one of a peer for whom DNS vouched.
func recordDNS() *Record {
	r := record(0)
	p := &r.Connection.Peer
	p.CAName, p.EKUs = [32]byte{}, nil
	p.Certificates = []policy.Certificate{{Serial: "a01", Issuer: hash("CN=self")}}
	r.Path.DNS = &certbind.Prints{Cert: r.Leaf, Key: p.Key, Cert512: sha512.Sum512([]byte("leaf")), Key512: sha512.Sum512([]byte("key"))}
	r.Until = time.Unix(1800000000, 0)
	return r
}

func TestRecord(t *testing.T) {
	for certs := range 5 {
		r := record(certs)
		if certs == 0 {
			r = recordDNS()
		}
		b, err := r.Encode()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d certificates: %d bytes", certs, len(b))
		got, err := Decode(b)
		if err != nil || !reflect.DeepEqual(got, r) {
			t.Fatalf("%d certificates: decoded\n%+v, %v, want\n%+v", certs, got, err, r)
		}
		for n := range b {
			if _, err := Decode(b[:n]); err == nil {
				t.Fatalf("the first %d bytes of %d were taken", n, len(b))
			}
		}
		if _, err := Decode(append(bytes.Clone(b), 0)); err == nil {
			t.Error("a byte more was taken")
		}
	}
}

// Rule 49: whatever groups a peer's statement holds, its connection can be judged again.
func TestRule49MostGroups(t *testing.T) {
	for _, r := range []*Record{record(4), recordDNS()} {
		p := &r.Connection.Peer
		p.Groups = nil
		for len(names.EncodeGroups(p.Groups)) < maxGroups-8 {
			p.Groups = append(p.Groups, fmt.Sprintf("%07d", len(p.Groups)))
		}
		p.Account, r.Connection.Account = strings.Repeat("a", maxAccount), strings.Repeat("b", maxAccount)
		b, err := r.Encode()
		if err != nil {
			t.Fatalf("%d groups: %v", len(p.Groups), err)
		}
		if got, err := Decode(b); err != nil || !reflect.DeepEqual(got.Connection.Peer.Groups, p.Groups) {
			t.Errorf("decoded %+v, %v", got, err)
		}
		t.Logf("%d groups: %d bytes", len(p.Groups), len(b))
	}
}

func TestRecordBounds(t *testing.T) {
	long := strings.Repeat("a", 60)
	for name, change := range map[string]func(*Record){
		"too many groups": func(r *Record) {
			for i := range 40 {
				r.Connection.Peer.Groups = append(r.Connection.Peer.Groups, fmt.Sprint(long, i))
			}
		},
		"too many names":            func(r *Record) { r.Connection.Peer.Names = make([]string, maxList+1) },
		"too long names":            func(r *Record) { r.Connection.Peer.Names = slices.Repeat([]string{long}, maxList) },
		"a name with a line's end":  func(r *Record) { r.Connection.Peer.Names = []string{"a\nb"} },
		"an account that is none":   func(r *Record) { r.Connection.Peer.Account = "Bob" },
		"a local account of none":   func(r *Record) { r.Connection.Account = "a b" },
		"a machine that is none":    func(r *Record) { r.Connection.Peer.Machine, r.Path.Machine = "a_b", "a_b" },
		"another machine's path":    func(r *Record) { r.Path.Machine = "beta.example.com" },
		"a path without the leaf":   func(r *Record) { r.Path.Certs = r.Path.Certs[:0] },
		"no certificate":            func(r *Record) { r.Path.Certs, r.Connection.Peer.Certificates = nil, nil },
		"an ID that is none":        func(r *Record) { r.ID = "0011" },
		"a direction that is none":  func(r *Record) { r.Connection.Direction = 2 },
		"an end before 1970":        func(r *Record) { r.Path.Certs[0].NotAfter = time.Unix(-1, 0) },
		"a serial with a zero":      func(r *Record) { r.Path.Certs[0].Serial = []byte{0, 1} },
		"a serial without an end":   func(r *Record) { r.Path.Certs[0].Serial = make([]byte, maxSerial+1) },
		"a service with a control":  func(r *Record) { r.Connection.Service = "\x7f" },
		"groups that are not names": func(r *Record) { r.Connection.Peer.Groups = []string{"A"} },
	} {
		r := record(2)
		change(r)
		b, err := r.Encode()
		if err == nil {
			t.Errorf("%s: encoded, %d bytes", name, len(b))
		}
		if strings.HasPrefix(name, "too") && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, change := range map[string]func(*Record){
		"another certificate's digests": func(r *Record) { r.Leaf[0] ^= 1 },
		"another key's":                 func(r *Record) { r.Path.DNS.Key[0] ^= 1 },
		"a path beside":                 func(r *Record) { r.Path.Certs = record(1).Path.Certs },
		"no certificate":                func(r *Record) { r.Connection.Peer.Certificates = nil },
		"two certificates": func(r *Record) {
			r.Connection.Peer.Certificates = append(r.Connection.Peer.Certificates, policy.Certificate{})
		},
		"a serial that is none": func(r *Record) { r.Connection.Peer.Certificates[0].Serial = "x" },
		"until before 1970":     func(r *Record) { r.Until = time.Unix(-1, 0) },
	} {
		r := recordDNS()
		change(r)
		if b, err := r.Encode(); err == nil {
			t.Errorf("by DNS, %s: encoded, %d bytes", name, len(b))
		}
	}
	if _, err := Decode(make([]byte, MaxSize+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a record that is too large: %v", err)
	}
}

func FuzzRecord(f *testing.F) {
	for certs := 1; certs <= 3; certs++ {
		b, err := record(certs).Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	b, err := recordDNS().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decode(b)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("a record is encoded in two ways: %x and %x, %v", b, again, err)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	enc, err := record(2).Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Decode(enc); err != nil {
			b.Fatal(err)
		}
	}
}

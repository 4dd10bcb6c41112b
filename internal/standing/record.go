// Package standing is what remains of a handshake while its connection stands: a record by which a daemon, also one that
// was restarted, judges the connection again with nothing else.
//
// The daemon gives the record to the application, which presents it. Nothing keeps an application from changing its own:
// it could as well not ask, or not close what it is told to.
package standing

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/names"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/wire"
)

// A Record is one connection, as its handshake proved it.
type Record struct {
	ID string // of the handshake, 16 hexadecimal digits
	// Connection is what the policy judged, but for the local groups, which are not recorded: an account's may change.
	Connection policy.Connection
	Leaf       [32]byte      // SHA-256 of the peer's certificate
	Path       certbind.Path // of Connection.Peer.Machine
	Until      time.Time     // where DNS vouched for the peer, when it is to be asked again
}

const (
	// MaxSize is the most that an encoded record may have, in bytes: with as many groups as a statement can hold, so that no peer
	// gets out of being judged again by the groups that it says.
	MaxSize = 4096

	version    = 1
	versionDNS = 2 // of a peer for whom DNS vouched
	idSize     = 8
	hashSize   = 32
	longHash   = 64
	endSize    = 8
	maxEnd     = 253402300799 // 9999-12-31T23:59:59Z
	maxAccount = 128
	maxGroups  = 2048 // docs/spec/protocol.md, section 5.4
	maxMachine = 253
	maxText    = 255
	maxSerial  = 64
	maxCerts   = 8 // beside the CA: a peer sends 4
	maxList    = 64
)

// ErrTooLarge says that a connection has too many names to be recorded.
var ErrTooLarge = fmt.Errorf("the record would have more than %d bytes", MaxSize)

// Encode returns the record as it travels.
func (r *Record) Encode() ([]byte, error) {
	id, err := hex.DecodeString(r.ID)
	if err != nil {
		return nil, fmt.Errorf("the handshake's ID: %w", err)
	}
	c, p := &r.Connection, &r.Connection.Peer
	groups := names.EncodeGroups(p.Groups)
	if len(groups) > maxGroups || len(p.Names) > maxList || len(p.EKUs) > maxList {
		return nil, ErrTooLarge
	}
	byDNS, certs := r.Path.DNS != nil, len(r.Path.Certs)
	if byDNS {
		certs++ // the leaf, which nobody has issued
	}
	if len(p.Certificates) != certs || byDNS && certs != 1 || p.Machine != r.Path.Machine {
		return nil, errors.New("the path is not that of the peer")
	}
	var w wire.Writer
	if byDNS {
		w.U8(versionDNS)
	} else {
		w.U8(version)
	}
	w.U8(byte(c.Direction))
	w.Put("id", id, idSize)
	w.Opaque8("local account", []byte(c.Account), 1, maxAccount)
	w.Opaque8("account", []byte(p.Account), 1, maxAccount)
	w.Opaque8("machine", []byte(p.Machine), 1, maxMachine)
	w.Opaque8("service", []byte(c.Service), 0, maxText)
	w.Opaque16("groups", []byte(groups), 0, maxGroups)
	for _, l := range []struct {
		name string
		list []string
	}{{"names", p.Names}, {"purposes", p.EKUs}} {
		w.U8(byte(len(l.list)))
		for _, s := range l.list {
			w.Opaque8(l.name, []byte(s), 1, maxText)
		}
	}
	w.Put("leaf", r.Leaf[:], hashSize)
	w.Put("key", p.Key[:], hashSize)
	if byDNS {
		return r.encodeDNS(&w)
	}
	w.U8(byte(len(r.Path.Certs)))
	for i, cert := range r.Path.Certs {
		w.Opaque8("serial", cert.Serial, 0, maxSerial)
		w.Put("issuer", p.Certificates[i].Issuer[:], hashSize)
		w.Put("issuer's key", cert.IssuerKey[:], hashSize)
		w.Put("end", binary.BigEndian.AppendUint64(nil, uint64(cert.NotAfter.Unix())), endSize)
	}
	w.Put("CA", p.CAName[:], hashSize)
	return checked(&w)
}

// checked returns what was written, if it is a record.
func checked(w *wire.Writer) ([]byte, error) {
	b, err := w.Bytes()
	if err == nil {
		_, err = Decode(b) // a name in a certificate may be anything
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Decode reads a record. What it returns may be logged: names are well formed, and what else is text is printable.
func Decode(b []byte) (*Record, error) {
	if len(b) > MaxSize {
		return nil, ErrTooLarge
	}
	r := wire.NewReader(b)
	v := r.U8("version")
	if v != version && v != versionDNS {
		r.Fail(fmt.Errorf("its version is %d, and this daemon knows %d and %d", v, version, versionDNS))
	}
	rec := new(Record)
	c, p := &rec.Connection, &rec.Connection.Peer
	if c.Direction = policy.Direction(r.U8("direction")); c.Direction != policy.In && c.Direction != policy.Out {
		r.Fail(errors.New("it has no direction"))
	}
	rec.ID = hex.EncodeToString(r.Take("id", idSize))
	c.Account = string(r.Opaque8("local account", 1, maxAccount))
	p.Account = string(r.Opaque8("account", 1, maxAccount))
	p.Machine = string(r.Opaque8("machine", 1, maxMachine))
	c.Service = text(r, "service", 0)
	groups := string(r.Opaque16("groups", 0, maxGroups))
	p.Names, p.EKUs = list(r, "names"), list(r, "purposes")
	copy(rec.Leaf[:], r.Take("leaf", hashSize))
	copy(p.Key[:], r.Take("key", hashSize))
	rec.Path.Machine = p.Machine
	if v == versionDNS {
		decodeDNS(r, rec)
	} else {
		decodePath(r, rec)
	}
	if err := r.End(); err != nil {
		return nil, err
	}
	for _, err := range []error{certbind.ValidAccount(c.Account, true), certbind.ValidAccount(p.Account, true),
		certbind.ValidMachineName(p.Machine)} {
		if err != nil {
			return nil, err
		}
	}
	if groups != "" {
		var err error
		if p.Groups, err = names.DecodeGroups(groups); err != nil {
			return nil, err
		}
	}
	return rec, nil
}

// decodePath reads the certificates up to a CA, and the CA.
func decodePath(r *wire.Reader, rec *Record) {
	p := &rec.Connection.Peer
	n := int(r.U8("certificates"))
	if n < 1 || n > maxCerts {
		r.Fail(fmt.Errorf("it has %d certificates", n))
	}
	for i := 0; i < n && r.Err() == nil; i++ {
		var cert certbind.PathCert
		var named policy.Certificate
		cert.Serial, named.Serial = serial(r)
		copy(named.Issuer[:], r.Take("issuer", hashSize))
		copy(cert.IssuerKey[:], r.Take("issuer's key", hashSize))
		cert.NotAfter = end(r)
		rec.Path.Certs, p.Certificates = append(rec.Path.Certs, cert), append(p.Certificates, named)
		p.CAKey = cert.IssuerKey
	}
	copy(p.CAName[:], r.Take("CA", hashSize))
}

// encodeDNS writes, behind what both kinds of record have, what there is of a certificate for which DNS vouched.
func (r *Record) encodeDNS(w *wire.Writer) ([]byte, error) {
	leaf, dns := r.Connection.Peer.Certificates[0], r.Path.DNS
	if dns.Cert != r.Leaf || dns.Key != r.Connection.Peer.Key {
		return nil, errors.New("the digests are not those of the peer's certificate")
	}
	digits := leaf.Serial
	if len(digits)%2 == 1 {
		digits = "0" + digits
	}
	serial, err := hex.DecodeString(digits)
	if err != nil {
		return nil, fmt.Errorf("the serial number: %w", err)
	}
	w.Opaque8("serial", bytes.TrimLeft(serial, "\x00"), 0, maxSerial)
	w.Put("issuer", leaf.Issuer[:], hashSize)
	w.Put("leaf's SHA-512", dns.Cert512[:], longHash)
	w.Put("key's SHA-512", dns.Key512[:], longHash)
	w.Put("until", binary.BigEndian.AppendUint64(nil, uint64(r.Until.Unix())), endSize)
	return checked(w)
}

func decodeDNS(r *wire.Reader, rec *Record) {
	p := &rec.Connection.Peer
	var leaf policy.Certificate
	_, leaf.Serial = serial(r)
	copy(leaf.Issuer[:], r.Take("issuer", hashSize))
	p.Certificates = []policy.Certificate{leaf}
	dns := &certbind.Prints{Cert: rec.Leaf, Key: p.Key}
	copy(dns.Cert512[:], r.Take("leaf's SHA-512", longHash))
	copy(dns.Key512[:], r.Take("key's SHA-512", longHash))
	rec.Path.DNS = dns
	rec.Until = end(r)
}

// serial reads a serial number, as bytes and as policies write it.
func serial(r *wire.Reader) (b []byte, written string) {
	b = r.Opaque8("serial", 0, maxSerial)
	if len(b) > 0 && b[0] == 0 {
		r.Fail(errors.New("a serial number has a leading zero"))
	}
	return b, digits(b)
}

// end reads the end of a certificate, which is after 1970 and no later than the year 9999.
func end(r *wire.Reader) time.Time {
	b := r.Take("end", endSize)
	if b == nil {
		return time.Time{}
	}
	seconds := binary.BigEndian.Uint64(b)
	if seconds > maxEnd {
		r.Fail(errors.New("a certificate ends at no time"))
	}
	return time.Unix(int64(seconds&(1<<62-1)), 0)
}

// digits writes a serial number as fmt does with %x.
func digits(serial []byte) string {
	s := hex.EncodeToString(serial)
	if s == "" {
		return "0"
	}
	return strings.TrimPrefix(s, "0")
}

func text(r *wire.Reader, name string, lo int) string {
	s := string(r.Opaque8(name, lo, maxText))
	if strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' }) {
		r.Fail(fmt.Errorf("the field %q is not printable", name))
	}
	return s
}

func list(r *wire.Reader, name string) (all []string) {
	n := int(r.U8(name))
	if n > maxList {
		r.Fail(fmt.Errorf("the field %q has %d entries", name, n))
	}
	for i := 0; i < n && r.Err() == nil; i++ {
		all = append(all, text(r, name, 1))
	}
	return all
}

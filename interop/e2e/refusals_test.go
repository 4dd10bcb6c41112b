package e2e

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/flynn/noise"
	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testclaim"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// A side says in which roles a bad peer is tried.
type side int

const (
	both     side = iota
	asClient      // the bad peer is the client, so that the daemon of the server refuses
	asServer
)

// A refusal is one way in which a peer is bad, and what comes of it.
type refusal struct {
	name string
	code reason.Code
	says string // words of the refusing daemon, in its log and, if it is the client's, in the client's own error
	side side
	// on names the daemon that refuses, if it is not alpha for a client or beta for a server.
	on func(*world) *daemon
	// claim makes the peer's identity bad, rogue the protocol.
	claim func(*claim)
	rogue func(*rogue)
	// silent: nothing is answered to what is not this protocol.
	silent bool
	// stops: the peer says no more. Stock grpc-go then waits for bytes of the peer's alone, so that its user learns from
	// its own deadline; the daemon says why in its log, long before.
	stops bool
	// late: a server's fault comes after message 3. Any other keeps it from learning who called.
	late bool
}

// change gives a function that changes one frame.
func change(typ byte, f func([]byte) []byte) func(*rogue) {
	return func(r *rogue) {
		r.send = func(t byte, frame []byte) []byte {
			if t == typ {
				return f(bytes.Clone(frame))
			}
			return frame
		}
	}
}

// flip changes a bit of the byte at an offset, from the end if it is negative.
func flip(typ byte, at int) func(*rogue) {
	return change(typ, func(f []byte) []byte {
		f[(at+len(f))%len(f)] ^= 1
		return f
	})
}

// header changes one byte of a frame's header.
func header(typ byte, at int, v byte) func(*rogue) {
	return change(typ, func(f []byte) []byte { f[at] = v; return f })
}

// instead sends other bytes in the place of a frame.
func instead(typ byte, b []byte) func(*rogue) {
	return change(typ, func([]byte) []byte { return b })
}

func hasty(w *world) *daemon { return w.hasty }

func guarded(w *world) *daemon { return w.guarded }

func account1(name string) func(*claim) { return func(c *claim) { c.Account = name } }

func machine1(name string) func(*claim) { return func(c *claim) { c.Machine = name } }

func attribute(name, value string) func(*claim) {
	return func(c *claim) { c.Attributes = [][2]string{{name, value}} }
}

func known(l testca.Leaf) func(*claim) { return func(c *claim) { c.issue(c.w.known, l) } }

var (
	randomBytes = func() []byte {
		b := make([]byte, 200)
		rand.Read(b)
		b[0] = 0xa7 // none of the protocols that are told by their first byte
		return b
	}()
	clientHello = append([]byte{0x16, 0x03, 0x01, 0x00, 0xc8, 0x01, 0x00, 0x00, 0xc4, 0x03, 0x03}, randomBytes...)
	settings    = []byte{0, 0, 0, 4, 0, 0, 0, 0, 0}
	rpc21       = [4]uint32{2, 1, 2, 1}
	otherRecord = "ALTSRP_GCM_AES128"
	ourRecord   = noiseproto.RecordProtocol
)

// refusals is every way in which a peer from the network can be bad.
var refusals = []refusal{
	// Trust.
	{name: "CA unknown", code: reason.UnknownCA, says: "does not lead to a CA that is trusted here", claim: func(c *claim) { c.issue(c.w.unknown, testca.Leaf{}) }},
	{name: "certificate signed by itself", code: reason.UnknownCA, says: "does not lead to a CA that is trusted here", claim: known(testca.Leaf{SelfSigned: true})},
	{name: "CA of the same name with another key", code: reason.UnknownCA, says: "does not lead to a CA that is trusted here", claim: func(c *claim) { c.issue(testca.MustCA(c.t, testca.Options{Name: "known"}), testca.Leaf{}) }},
	{name: "intermediate certificate not sent", code: reason.UnknownCA, says: "or the intermediate certificates there", claim: func(c *claim) {
		c.issue(c.intermediate(c.w.known, testca.Options{}), testca.Leaf{})
		c.Certificates = c.Certificates[:1]
	}},
	{name: "intermediate that is no CA", code: reason.UnknownCA, says: "does not lead to a CA that is trusted here", claim: func(c *claim) { c.issue(c.intermediate(c.w.known, testca.Options{NotCA: true}), testca.Leaf{}) }},
	{name: "chain longer than a CA allows", code: reason.UnknownCA, says: "does not lead to a CA that is trusted here", claim: func(c *claim) {
		i := c.intermediate(c.w.known, testca.Options{MaxPathLen: -1})
		c.issue(c.intermediate(i, testca.Options{}), testca.Leaf{})
	}},
	{name: "CA limited to other names", code: reason.UnknownCA, says: "is trusted, but not for machine", claim: func(c *claim) { c.issue(c.w.limited, testca.Leaf{}) }},

	// Time and revocation.
	{name: "certificate expired", code: reason.CertificateExpired, says: "the peer's certificate has expired at", claim: known(testca.Leaf{NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-time.Minute)})},
	{name: "certificate of an intermediate expired", code: reason.CertificateExpired, says: "a CA of the chain has expired at", claim: func(c *claim) {
		c.issue(c.intermediate(c.w.known, testca.Options{NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-time.Minute)}), testca.Leaf{})
	}},
	{name: "certificate not yet valid", code: reason.CertificateNotYetValid, says: "the peer's certificate is valid only from", claim: known(testca.Leaf{NotBefore: time.Now().Add(time.Hour)})},
	{name: "certificate revoked", code: reason.CertificateRevoked, says: "is revoked by", claim: func(c *claim) { c.use(c.w.revokedLeaf); c.Machine = "revoked.test" }},
	{name: "certificate of an intermediate revoked", code: reason.CertificateRevoked, says: "is revoked by", claim: func(c *claim) { c.issue(c.w.revokedCA, testca.Leaf{}) }},
	{name: "revocation list out of date", code: reason.RevocationUnknown, says: "was due to be replaced at", claim: func(c *claim) { c.issue(c.w.outdated, testca.Leaf{}) }},

	// Rule 12: what kind of certificate.
	{name: "key usage without digitalSignature", code: reason.CertificateUnacceptable, says: "lacks the key usage digitalSignature", claim: known(testca.Leaf{KeyUsage: x509.KeyUsageKeyEncipherment})},
	{name: "no key usage", code: reason.CertificateUnacceptable, says: "lacks the key usage digitalSignature", claim: known(testca.Leaf{NoKeyUsage: true})},
	{name: "extended key usage for code signing", code: reason.CertificateUnacceptable, says: "has an extended key usage that is neither serverAuth nor clientAuth", claim: known(testca.Leaf{EKUs: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}})},
	{name: "intermediate with extended key usage for code signing", code: reason.CertificateUnacceptable, says: "an intermediate of the chain has an extended key usage", claim: func(c *claim) {
		c.issue(c.intermediate(c.w.known, testca.Options{EKUs: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}}), testca.Leaf{})
	}},
	{name: "extended key usage of --require-eku missing", code: reason.CertificateUnacceptable, says: "that is required here", on: func(w *world) *daemon { return w.demanding }},
	{name: "a CA as the machine", code: reason.CertificateUnacceptable, says: "the certificate of the machine is a CA", claim: known(testca.Leaf{IsCA: true})},
	{name: "the key of a trusted CA as the machine's", code: reason.CertificateUnacceptable, says: "has the key of a trusted CA", claim: func(c *claim) { c.issue(c.w.unknown, testca.Leaf{Key: c.w.known.Key}) }},
	{name: "unknown critical extension", code: reason.CertificateUnacceptable, says: "has a critical extension that is not known here", claim: func(c *claim) {
		l := testca.Leaf{}
		l.ExtraExtensions = append(l.ExtraExtensions, testca.UnknownCritical)
		c.issue(c.w.known, l)
	}},

	// Rule 11: bounds.
	{name: "RSA key of 1024 bits", code: reason.CertificateUnacceptable, says: "the peer's certificate is not acceptable", claim: known(testca.Leaf{PublicKey: testca.HugeRSA(1024, 65537)})},
	{name: "RSA key of 8192 bits", code: reason.CertificateUnacceptable, says: "the peer's certificate is not acceptable", claim: known(testca.Leaf{KeyType: testca.RSA8192})},
	{name: "RSA key with exponent 3", code: reason.CertificateUnacceptable, says: "the peer's certificate is not acceptable", claim: known(testca.Leaf{PublicKey: testca.HugeRSA(2048, 3)})},
	{name: "key on P-521", code: reason.CertificateUnacceptable, says: "on a curve other than P-256 and P-384", claim: known(testca.Leaf{KeyType: testca.P521})},
	{name: "key on P-224", code: reason.CertificateUnacceptable, says: "on a curve other than P-256 and P-384", claim: known(testca.Leaf{KeyType: testca.P224})},
	{name: "certificate that does not parse", code: reason.CertificateUnacceptable, says: "does not parse as X.509", claim: func(c *claim) { c.Certificates = [][]byte{randomBytes} }},
	{name: "five certificates", code: reason.Malformed, says: "it has 5 certificates, not 1 to 4", claim: func(c *claim) { c.Certificates = slices.Repeat(c.Certificates, 5) }},
	{name: "no certificate", code: reason.Malformed, says: "it has 0 certificates, not 1 to 4", claim: func(c *claim) { c.Encoded = func(b []byte) []byte { b[0] = 0; return b } }},
	{name: "certificates of more than 16 KiB", code: reason.Malformed, says: `the field "certificate" has`, claim: func(c *claim) {
		c.Certificates = append(c.Certificates, make([]byte, 6000), make([]byte, 6000), make([]byte, 5000))
	}},
	{name: "bytes after the identity", code: reason.Malformed, says: "1 bytes follow its last field", claim: func(c *claim) { c.Encoded = func(b []byte) []byte { return append(b, 0) } }},

	// The statement.
	{name: "statement signed by another key", code: reason.StatementInvalid, says: "is not that of the key of its certificate", claim: func(c *claim) {
		key, err := testca.NewKey(testca.P256)
		if err != nil {
			c.t.Fatal(err)
		}
		c.Key = key
	}},
	{name: "signature without its context", code: reason.StatementInvalid, says: "is not that of the key of its certificate", claim: func(c *claim) {
		c.Signed = func(id *testclaim.Identity) {
			sum := sha256.Sum256(id.Statement)
			var err error
			id.Signature, err = ecdsa.SignASN1(rand.Reader, c.Key.(*ecdsa.PrivateKey), sum[:])
			if err != nil {
				c.t.Fatal(err)
			}
		}
	}},
	{name: "signature by another scheme of RSA", code: reason.StatementInvalid, says: "is not that of the key of its certificate", claim: func(c *claim) {
		c.issue(c.w.known, testca.Leaf{KeyType: testca.RSA2048})
		c.Signed = func(id *testclaim.Identity) {
			sum := sha256.Sum256(testclaim.SignatureInput(id.Statement))
			var err error
			id.Signature, err = rsa.SignPKCS1v15(nil, c.Key.(*rsa.PrivateKey), crypto.SHA256, sum[:])
			if err != nil {
				c.t.Fatal(err)
			}
		}
	}},
	{name: "static key that is not the signed one", code: reason.StatementInvalid, says: "is for another static key", claim: func(c *claim) { c.StaticKey[0] ^= 1 }},
	{name: "statement about another certificate", code: reason.StatementInvalid, says: "is for another certificate than the one it sent", claim: func(c *claim) { c.Leaf = sha256.Sum256(c.w.known.Cert.Raw) }},
	{name: "attestation captured from another machine", code: reason.StatementInvalid, says: "a statement captured from another machine", claim: func(c *claim) {
		captured := c.w.capture(c.t)
		c.Encoded = func([]byte) []byte { return captured }
	}},
	{name: "bytes after the statement", code: reason.StatementInvalid, says: "the peer's statement is malformed", claim: func(c *claim) { c.Unsigned = func(b []byte) []byte { return append(b, 0) } }},
	{name: "statement of an unknown format", code: reason.StatementInvalid, says: "the peer's statement is malformed", claim: func(c *claim) { c.Unsigned = func(b []byte) []byte { b[2] = 2; return b } }},
	{name: "statement expired", code: reason.StatementExpired, says: "the peer's statement has expired at", claim: func(c *claim) { c.NotAfter = time.Now().Add(-time.Minute) }},
	{name: "statement not yet valid", code: reason.StatementExpired, says: "the peer's statement is valid only from", claim: func(c *claim) { c.NotBefore = time.Now().Add(10 * time.Minute) }},
	{name: "statement for more than 24 hours", code: reason.StatementExpired, says: "is made for longer than 24h0m0s", claim: func(c *claim) { c.NotAfter = c.NotBefore.Add(24*time.Hour + time.Second) }},
	{name: "statement that outlives the certificate", code: reason.StatementExpired, says: "outlives its certificate", claim: known(testca.Leaf{NotAfter: time.Now().Add(10 * time.Minute)})},

	// Rule 19: names of machines.
	{name: "wildcard certificate", code: reason.MachineNameMismatch, says: "which is none of the DNS names of its certificate", claim: known(testca.Leaf{Hosts: []string{"*.test"}})},
	{name: "wildcard claimed", code: reason.MachineNameMismatch, says: "the peer's machine name is not acceptable", claim: func(c *claim) {
		c.issue(c.w.known, testca.Leaf{Hosts: []string{"*.test"}})
		c.Machine = "*.test"
	}},
	{name: "certificate without a DNS name", code: reason.MachineNameMismatch, says: "which is none of the DNS names of its certificate", claim: known(testca.Leaf{Subject: pkix.Name{CommonName: "eve.test"}})},
	{name: "claimed name not in the certificate", code: reason.MachineNameMismatch, says: "which is none of the DNS names of its certificate", claim: machine1("beta.test")},
	{name: "an IP address claimed", code: reason.MachineNameMismatch, says: "the peer's machine name is not acceptable", claim: machine1("127.0.0.1")},
	{name: "localhost claimed", code: reason.MachineNameMismatch, says: "the peer's machine name is not acceptable", claim: func(c *claim) {
		c.issue(c.w.known, testca.Leaf{Hosts: []string{"localhost"}})
		c.Machine = "localhost"
	}},
	{name: "machine name with capitals", code: reason.MachineNameMismatch, says: "the peer's machine name is not acceptable", claim: machine1("EVE.test")},
	{name: "machine name with a trailing dot", code: reason.MachineNameMismatch, says: "the peer's machine name is not acceptable", claim: machine1("eve.test.")},
	{name: "name that a constraint of the CA does not permit", code: reason.MachineNameMismatch, says: "a name constraint of a CA of the chain", claim: func(c *claim) { c.issue(c.w.inside, testca.Leaf{}) }},
	{name: "name that a constraint of the CA excludes", code: reason.MachineNameMismatch, says: "a name constraint of a CA of the chain", claim: func(c *claim) {
		c.issue(c.w.inside, testca.Leaf{Hosts: []string{"eve.secret.inside.test"}})
		c.Machine = "eve.secret.inside.test"
	}},

	// Rule 17: names of accounts.
	{name: "account with capitals", code: reason.AccountUnacceptable, says: "the peer's account name is not acceptable", claim: account1("Mallory")},
	{name: "account with @", code: reason.AccountUnacceptable, says: "allow domain accounts", claim: account1("mallory@corp")},
	{name: "account with a backslash", code: reason.AccountUnacceptable, says: "allow domain accounts", claim: account1(`corp\mallory`)},
	{name: "account of more than 64 bytes", code: reason.AccountUnacceptable, says: "an account name has 65 bytes", claim: account1(strings.Repeat("m", 65))},
	{name: "account with a line feed", code: reason.AccountUnacceptable, says: "the peer's account name is not acceptable", claim: account1("mallory\nroot")},
	{name: "account that begins with a hyphen", code: reason.AccountUnacceptable, says: "the peer's account name is not acceptable", claim: account1("-mallory")},
	{name: "attribute user", code: reason.AccountUnacceptable, says: `the attribute name "user" is reserved`, claim: attribute("user", "alice")},
	{name: "attribute machine", code: reason.AccountUnacceptable, says: `the attribute name "machine" is reserved`, claim: attribute("machine", "beta.test")},
	{name: "attribute uid that is no number", code: reason.AccountUnacceptable, says: `the attribute "uid" is not a decimal number`, claim: attribute("uid", "007")},
	{name: "attribute with a control character", code: reason.AccountUnacceptable, says: "holds a byte outside", claim: attribute("note", "a\nb")},
	{name: "group with a space as it is", code: reason.AccountUnacceptable, says: "a group's name holds a byte that has to be encoded", claim: attribute("groups", "domain users")},
	{name: "group with a letter encoded", code: reason.AccountUnacceptable, says: "is encoded that stands for itself", claim: attribute("groups", "wh%65el")},

	// Negotiation.
	{name: "server without our application protocol", code: reason.NoApplicationProtocol, says: "no application protocol in common", side: asServer, rogue: func(r *rogue) { r.offer = offer([]string{"h3"}, []string{ourRecord}, rpc21, nil) }},
	{name: "server without our record protocol", code: reason.NoRecordProtocol, says: "no record protocol in common", side: asServer, rogue: func(r *rogue) { r.offer = offer([]string{"grpc"}, []string{otherRecord}, rpc21, nil) }},
	{name: "RPC versions that do not overlap", code: reason.NoRPCVersion, says: "no RPC protocol version in common", rogue: func(r *rogue) {
		v := [4]uint32{3, 1, 3, 0}
		r.offer, r.choice = offer([]string{"grpc"}, []string{ourRecord}, v, nil), choice("grpc", ourRecord, v, "")
	}},
	{name: "application protocol chosen that was not offered", code: reason.BadChoice, says: "chose an application protocol", side: asClient, rogue: func(r *rogue) { r.choice = choice("h3", ourRecord, rpc21, "") }},
	{name: "record protocol chosen that was not offered", code: reason.BadChoice, says: "chose a record protocol", side: asClient, rogue: func(r *rogue) { r.choice = choice("grpc", otherRecord, rpc21, "") }},
	{name: "transport protocol chosen that was not offered", code: reason.BadChoice, says: "chose a transport protocol", side: asClient, rogue: func(r *rogue) { r.choice = choice("grpc", ourRecord, rpc21, "quic") }},
	{name: "offer or choice with bytes after it", code: reason.Malformed, says: "the peer's ", rogue: func(r *rogue) { r.offer, r.choice = append(r.offer, 0), append(r.choice, 0) }},
	{name: "offer that holds a protocol twice", code: reason.Malformed, says: "holds an entry twice", side: asServer, rogue: func(r *rogue) { r.offer = offer([]string{"grpc", "grpc"}, []string{ourRecord}, rpc21, nil) }},
	{name: "payload cut short", code: reason.Malformed, says: "the peer's ", rogue: func(r *rogue) { r.payload = func(b []byte) []byte { return b[:len(b)-3] } }},

	// Policy: last of all checks.
	{name: "denied by a rule of --policy", code: reason.DeniedByPolicy, says: "the rules of this machine do not let", on: guarded},
	{name: "denied before all rules, by another name of its certificate", code: reason.DeniedByPolicy, says: "has denied what would let", on: guarded, claim: known(testca.Leaf{Hosts: []string{"eve.test", "banned.test"}})},

	// The cryptography.
	{name: "ephemeral key of low order", code: reason.DecryptionFailed, says: "an X25519 key of the peer's has low order", rogue: func(r *rogue) { r.dh = badKey{noise.DH25519, make([]byte, 32)} }},
	{name: "static key of low order", code: reason.DecryptionFailed, says: "an X25519 key of the peer's has low order", rogue: func(r *rogue) { r.static.Public, r.dh = make([]byte, 32), badKey{DHFunc: noise.DH25519} }},
	{name: "ML-KEM key that is out of range", code: reason.DecryptionFailed, says: "ML-KEM encapsulation key is not valid", side: asClient, rogue: func(r *rogue) { r.key = func(ek []byte) []byte { return bytes.Repeat([]byte{0xff}, len(ek)) } }},
	{name: "wrong ML-KEM secret", code: reason.DecryptionFailed, says: "message 3 of the peer's does not decrypt", side: asClient, rogue: func(r *rogue) { r.psk = func(psk []byte) []byte { return make([]byte, len(psk)) } }},
	{name: "message 1 changed in the ephemeral key", code: reason.DecryptionFailed, says: "message 1 of the peer's does not decrypt", side: asClient, rogue: flip(frame1, 8)},
	{name: "message 1 changed in the payload", code: reason.DecryptionFailed, says: "message 1 of the peer's does not decrypt", side: asClient, rogue: flip(frame1, 700)},
	{name: "message 1 changed in the tag", code: reason.DecryptionFailed, says: "message 1 of the peer's does not decrypt", side: asClient, rogue: flip(frame1, -1)},
	{name: "message 2 changed in the ephemeral key", code: reason.DecryptionFailed, says: "message 2 of the peer's does not decrypt", side: asServer, rogue: flip(frame2, 8)},
	{name: "message 2 changed in the static key", code: reason.DecryptionFailed, says: "message 2 of the peer's does not decrypt", side: asServer, rogue: flip(frame2, 8+32)},
	{name: "message 2 changed in the payload", code: reason.DecryptionFailed, says: "message 2 of the peer's does not decrypt", side: asServer, rogue: flip(frame2, 900)},
	{name: "message 2 changed in the tag", code: reason.DecryptionFailed, says: "message 2 of the peer's does not decrypt", side: asServer, rogue: flip(frame2, -1)},
	{name: "message 3 changed in the static key", code: reason.DecryptionFailed, says: "message 3 of the peer's does not decrypt", side: asClient, rogue: flip(frame3, 8)},
	{name: "message 3 changed in the payload", code: reason.DecryptionFailed, says: "message 3 of the peer's does not decrypt", side: asClient, rogue: flip(frame3, 100)},
	{name: "message 3 changed in the tag", code: reason.DecryptionFailed, says: "message 3 of the peer's does not decrypt", side: asClient, rogue: flip(frame3, -1)},

	// Frames.
	{name: "another version of the protocol", code: reason.UnsupportedVersion, says: "the peer speaks version 2 of the protocol", side: asClient, rogue: header(frame1, 4, 2)},
	{name: "answer in another version", code: reason.UnsupportedVersion, says: "the peer answered in version 2 of the protocol", side: asServer, rogue: header(frame2, 4, 2)},
	{name: "version changed in the middle", code: reason.UnsupportedVersion, says: "the peer answered in version 3 of the protocol", side: asClient, rogue: header(frame3, 4, 3)},
	{name: "frame of an unknown type", code: reason.Malformed, says: "the peer sent a frame of unknown type 9", side: asClient, rogue: header(frame1, 5, 9)},
	{name: "answer of an unknown type", code: reason.Malformed, says: "the peer sent a frame of unknown type 9", side: asServer, rogue: header(frame2, 5, 9)},
	{name: "message 1 too long", code: reason.Malformed, says: "message 1 of 1233 bytes, it must have 1232 to 1232", side: asClient, rogue: header(frame1, 7, 1233&0xff)},
	{name: "message 1 too short", code: reason.Malformed, says: "message 1 of 1231 bytes, it must have 1232 to 1232", side: asClient, rogue: header(frame1, 7, 1231&0xff)},
	{name: "message 2 too long", code: reason.Malformed, says: "message 2 of 65535 bytes", side: asServer, rogue: change(frame2, func(f []byte) []byte { f[6], f[7] = 0xff, 0xff; return f })},
	{name: "message 2 too short", code: reason.Malformed, says: "message 2 of 1189 bytes", side: asServer, rogue: instead(frame2, newFrame(frame2, make([]byte, 1189)))},
	{name: "message 3 too long", code: reason.Malformed, says: "message 3 of 24577 bytes", side: asClient, rogue: change(frame3, func(f []byte) []byte { f[6], f[7] = 24577>>8, 24577&0xff; return f })},
	{name: "message 3 too short", code: reason.Malformed, says: "message 3 of 69 bytes", side: asClient, rogue: instead(frame3, newFrame(frame3, make([]byte, 69)))},
	{name: "status of a wrong length", code: reason.Malformed, says: "status of 5 bytes", rogue: func(r *rogue) {
		r.send = func(typ byte, f []byte) []byte {
			if typ == frame1 {
				return f
			}
			return newFrame(frameStatus, []byte{0, 1, 1, 1, 0})
		}
	}},
	{name: "message 2 first", code: reason.Malformed, says: "a message 2 where a message 1 must come", side: asClient, rogue: instead(frame1, newFrame(frame2, make([]byte, 2000)))},
	{name: "message 3 first", code: reason.Malformed, says: "a message 3 where a message 1 must come", side: asClient, rogue: instead(frame1, newFrame(frame3, make([]byte, 2000)))},
	{name: "accepting status first", code: reason.Malformed, says: "an accepting status where a message 1 must come", side: asClient, rogue: instead(frame1, statusFrame(0))},
	{name: "accepting status in the place of message 3", code: reason.Malformed, says: "an accepting status where a message 3 must come", side: asClient, rogue: instead(frame3, statusFrame(0))},
	{name: "accepting status in the place of message 2", code: reason.Malformed, says: "an accepting status where a message 2 must come", side: asServer, rogue: instead(frame2, statusFrame(0))},
	{name: "message 1 in the place of message 2", code: reason.Malformed, says: "a message 1 where a message 2 must come", side: asServer, rogue: instead(frame2, newFrame(frame1, make([]byte, 1232)))},
	{name: "message 1 twice", code: reason.Malformed, says: "a message 1 where a message 3 must come", side: asClient, rogue: change(frame1, func(f []byte) []byte { return append(f, f...) })},
	{name: "message 2 twice", code: reason.Malformed, says: "a message 2 where a status must come", side: asServer, rogue: change(frame2, func(f []byte) []byte { return append(f, f...) })},

	// Other protocols.
	{name: "TLS", code: reason.Malformed, says: "speaks TLS, not ALTS", silent: true, side: asClient, rogue: instead(frame1, clientHello)},
	{name: "a server that answers by a TLS alert", code: reason.Malformed, says: "speaks TLS, not ALTS", silent: true, side: asServer, rogue: instead(frame2, []byte{0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46})},
	{name: "HTTP/2", code: reason.Malformed, says: "speaks HTTP/2 without transport security", silent: true, side: asClient, rogue: instead(frame1, append([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), settings...))},
	{name: "a server of HTTP/2", code: reason.Malformed, says: "speaks HTTP/2 without transport security", silent: true, side: asServer, rogue: instead(frame2, settings)},
	{name: "HTTP", code: reason.Malformed, says: "speaks HTTP, not ALTS", silent: true, side: asClient, rogue: instead(frame1, []byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))},
	{name: "a server of HTTP", code: reason.Malformed, says: "speaks HTTP, not ALTS", silent: true, side: asServer, rogue: instead(frame2, []byte("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"))},
	{name: "SSH", code: reason.Malformed, says: "speaks SSH, not ALTS", silent: true, rogue: func(r *rogue) { r.send = func(byte, []byte) []byte { return []byte("SSH-2.0-OpenSSH_9.6\r\n") } }},
	{name: "random bytes", code: reason.Malformed, says: "speaks something unknown", silent: true, rogue: func(r *rogue) { r.send = func(byte, []byte) []byte { return randomBytes } }},
	{name: "zero bytes", code: reason.Malformed, says: "speaks zero bytes", silent: true, rogue: func(r *rogue) { r.send = func(byte, []byte) []byte { return make([]byte, 100) } }},
	{name: "magic changed in the last byte", code: reason.Malformed, says: "speaks something unknown", silent: true, rogue: func(r *rogue) { r.send = func(_ byte, f []byte) []byte { f[3] ^= 1; return f } }},

	// Peers that stop.
	{name: "nothing after half of message 1", code: reason.TimedOut, says: "did not finish within 1s", stops: true, side: asClient, on: hasty, rogue: change(frame1, func(f []byte) []byte { return f[:600] })},
	{name: "nothing after half of message 3", code: reason.TimedOut, says: "did not finish within 1s", stops: true, side: asClient, on: hasty, rogue: change(frame3, func(f []byte) []byte { return f[:len(f)/2] })},
	{name: "nothing after message 1", code: reason.TimedOut, says: "did not finish within 1s", stops: true, side: asServer, on: hasty, rogue: instead(frame2, nil)},
	{name: "no status after message 3", late: true, code: reason.TimedOut, says: "did not finish within 1s", stops: true, side: asServer, on: hasty, rogue: instead(frameStatus, nil)},
}

// capture gives the identity that beta's daemon proves bob with.
func (w *world) capture(t testing.TB) []byte {
	t.Helper()
	addr := w.as(t, bob).listen(t, w.beta, 0)
	o := w.goodClaim(t).rogue().dial(addr)
	if o.code != 0 || o.identity == nil {
		t.Fatalf("the peer that is to capture an identity was refused: %+v", o)
	}
	w.keepSecret("the keys of a handshake", o.key)
	return o.identity
}

// perReason is how many refusals of one account and reason a daemon logs in a minute one by one (rule 25).
const perReason = 5

// pool gives each case an account under which its refusal will be logged. Cases of one daemon and reason share one.
func (w *world) pool(t testing.TB, d *daemon, why string) *process {
	t.Helper()
	key := d.machine + " " + why
	n := w.used[key] / perReason
	w.used[key]++
	if n >= poolSize {
		t.Fatalf("more than %d refusals because of %s: the pool of accounts is too small", poolSize*perReason, why)
	}
	return w.as(t, poolAccount(n))
}

// refusesClient checks that a stock client, by its daemon, does not take the rogue for a server, and says why.
func (r *refusal) refusesClient(t *testing.T, w *world, d *daemon, p *process) {
	c := w.goodClaim(t)
	if r.claim != nil {
		r.claim(c)
	}
	peer := c.rogue()
	if r.rogue != nil {
		r.rogue(peer)
	}
	mark := d.mark()
	addr, done := peer.listen(t)
	call := order{Op: "call", Socket: d.socket, Addr: addr, Targets: []string{"mallory@eve.test", "mallory@revoked.test"}}
	if r.stops {
		call.ConnectTimeout = 2 * time.Second
	}
	got := p.do(t, call)
	o := <-done
	if r.stops {
		wantError(t, got, codes.Unavailable, "authentication handshake failed")
	} else {
		wantError(t, got, reasons[r.code].own, "this machine's daemon refused", r.says, "("+r.code.String()+")",
			"handshake "+o.id)
	}
	if got.Took > soon {
		t.Errorf("the client's error came after %v", got.Took)
	}
	if o.err != nil {
		t.Errorf("the bad server: %v", o.err)
	}
	if o.got3 != r.late {
		t.Errorf("whether the bad server was told who called: %v", o.got3)
	}
	d.find(t, mark, r.name, func(l *record) bool {
		return l.Reason == r.code.String() && l.UID == p.uid && l.Role == "initiator" && l.ID == o.id && !l.ByPeer &&
			strings.Contains(l.Detail, r.says)
	})
}

// refusesServer checks that a stock server, by its daemon, does not take the rogue for a client, which is told why; and
// that the next client gets through.
func (r *refusal) refusesServer(t *testing.T, w *world, d *daemon, p *process, addr string) {
	c := w.goodClaim(t)
	if r.claim != nil {
		r.claim(c)
	}
	peer := c.rogue()
	if r.rogue != nil {
		r.rogue(peer)
	}
	mark := d.mark()
	logged := func(l *record) bool {
		return l.Reason == r.code.String() && l.UID == p.uid && l.Role == "responder" && !l.ByPeer &&
			strings.Contains(l.Detail, r.says)
	}
	if r.stops {
		gone := make(chan outcome)
		hangUp := make(chan struct{})
		peer.until = hangUp
		go func() { gone <- peer.dial(addr) }()
		d.find(t, mark, r.name, logged)
		close(hangUp)
		<-gone
		return
	}
	began := time.Now()
	o := peer.dial(addr)
	if took := time.Since(began); took > soon {
		t.Errorf("the bad client's refusal came after %v", took)
	}
	switch {
	case o.err != nil:
		t.Errorf("the bad client: %v", o.err)
	case r.silent && !o.silent:
		t.Errorf("the bad client was answered by code %d", o.code)
	case !r.silent && o.code != int(r.code):
		t.Errorf("the bad client got code %d (%v), want %d (%v)", o.code, reason.Code(max(o.code, 0)), r.code, r.code)
	}
	d.find(t, mark, r.name, func(l *record) bool { return logged(l) && l.ID == o.id })
	honest := w.as(t, alice).do(t, order{Op: "call", Socket: w.honest(d).socket, Addr: addr, Targets: []string{p.on(d)}})
	if honest.Code != codes.OK {
		t.Errorf("an honest client right afterwards: %s", honest.Text)
	}
}

// honest gives a daemon whose machine d accepts.
func (w *world) honest(d *daemon) *daemon {
	if d == w.demanding {
		return w.demanding
	}
	return w.alpha
}

// wantError checks an RPC's error as its user sees it.
func wantError(t testing.TB, got report, code codes.Code, texts ...string) {
	t.Helper()
	if got.Code == codes.OK {
		t.Errorf("no error; the peer is %q", got.Peer.Account)
		return
	}
	if got.Code != code {
		t.Errorf("code %v, want %v: %s", got.Code, code, got.Text)
	}
	plain := strings.NewReplacer(`\"`, `"`, `\\`, `\`).Replace(got.Text) // grpc-go quotes the error that it wraps
	for _, text := range texts {
		if !strings.Contains(plain, text) {
			t.Errorf("the error does not say %q: %s", text, got.Text)
		}
	}
}

// TestRefusals has bad clients call stock servers, and stock clients call bad servers.
func TestRefusals(t *testing.T) {
	w := theWorld(t)
	servers := map[string]string{}
	for i := range refusals {
		r := &refusals[i]
		for _, s := range []side{asClient, asServer} {
			if r.side != both && r.side != s {
				continue
			}
			d, name := w.beta, r.name+"/client"
			if s == asServer {
				d, name = w.alpha, r.name+"/server"
			}
			if r.on != nil {
				d = r.on(w)
			}
			p := w.pool(t, d, r.code.String())
			if s == asServer {
				t.Run(name, func(t *testing.T) { t.Parallel(); r.refusesClient(t, w, d, p) })
				continue
			}
			key := d.machine + p.name
			if servers[key] == "" {
				servers[key] = p.listen(t, d, 0)
			}
			t.Run(name, func(t *testing.T) { t.Parallel(); r.refusesServer(t, w, d, p, servers[key]) })
		}
	}
}

// The rogue itself is no reason for a refusal.
func TestRogueWithoutFault(t *testing.T) {
	w := theWorld(t)
	c := w.goodClaim(t)
	mark := w.beta.mark()
	o := c.rogue().dial(w.as(t, bob).listen(t, w.beta, 0))
	if o.err != nil || o.code != 0 || !o.goesOn {
		t.Fatalf("a good client: %+v", o)
	}
	w.keepSecret("the keys of a handshake", o.key)
	if l := w.beta.find(t, mark, "the good client",
		func(l *record) bool { return l.ID == o.id }); l.Peer != "mallory@eve.test" {
		t.Errorf("logged %+v", l)
	}
	addr, done := c.rogue().listen(t)
	r := w.as(t, alice).do(t, order{Op: "call", Socket: w.alpha.socket, Addr: addr, Targets: []string{"mallory@eve.test"}})
	o = <-done
	if o.err != nil || !o.got3 || !o.goesOn || r.Code != codes.Unavailable || strings.Contains(r.Text, "handshake") {
		t.Fatalf("a good server: %+v, %+v", o, r)
	}
	w.keepSecret("the keys of a handshake", o.key)
}

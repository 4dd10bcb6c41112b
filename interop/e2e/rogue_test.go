package e2e

import (
	"crypto/mlkem"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/flynn/noise"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testclaim"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
	"github.com/shared-altsd/shared-altsd/noiseproto"
)

// The types of frames, docs/spec/protocol.md, section 3.
const (
	frame1      = 1
	frame2      = 2
	frame3      = 3
	frameStatus = 4
)

func newFrame(typ byte, body []byte) []byte {
	f := append([]byte("salt"), 1, typ)
	return append(binary.BigEndian.AppendUint16(f, uint16(len(body))), body...)
}

// statusFrame is a status of any code, known or not.
func statusFrame(code uint16) []byte {
	return newFrame(frameStatus, append(binary.BigEndian.AppendUint16(nil, code), 1, 1))
}

// A rogue is a peer on a raw TCP connection that speaks the protocol of docs/spec/protocol.md, written from that text on the
// Noise library alone, and breaks it where it is told to. It accepts whoever it talks to.
type rogue struct {
	static   noise.DHKey
	identity []byte
	offer    []byte // as a server
	choice   []byte // as a client
	dh       noise.DHFunc
	key      func(encapsulationKey []byte) []byte // changes what is sent as such
	psk      func([]byte) []byte
	payload  func([]byte) []byte // of message 2 or 3
	// send says what is sent instead of a frame, or nil for nothing; the connection stays open.
	send  func(typ byte, f []byte) []byte
	until <-chan struct{} // hang up when it is closed
}

// An outcome is what a rogue saw of the other side.
type outcome struct {
	id       string // of the handshake, if a whole message 1 was sent
	code     int    // of the status that came, -1 if none did
	silent   bool   // not one byte came where an answer would stand
	got3     bool   // a client sent message 3
	identity []byte // of the other side
	key      []byte // if accepted
	goesOn   bool   // the other side's record layer spoke after that
	err      error
}

func newRogue(identity []byte, static noise.DHKey) *rogue {
	v := [4]uint32{2, 1, 2, 1}
	return &rogue{static: static, identity: identity, offer: offer([]string{"grpc"},
		[]string{noiseproto.RecordProtocol}, v, nil),
		choice: choice("grpc", noiseproto.RecordProtocol, v, ""), dh: noise.DH25519}
}

func (r *rogue) noise(initiator bool) (*noise.HandshakeState, error) {
	return noise.NewHandshakeState(noise.Config{
		CipherSuite: noise.NewCipherSuite(r.dh, noise.CipherAESGCM, noise.HashSHA256), Pattern: noise.HandshakeXX,
		Initiator: initiator,
		Prologue:  []byte("shared-altsd\x01"), PresharedKeyPlacement: 3, StaticKeypair: r.static,
	})
}

func (r *rogue) write(c net.Conn, typ byte, body []byte) error {
	f := newFrame(typ, body)
	if r.send != nil {
		f = r.send(typ, f)
	}
	_, err := c.Write(f)
	return err
}

// readFrame reads one frame; io.EOF if the connection ends before it, or is reset.
func readFrame(c net.Conn) (typ byte, body []byte, err error) {
	var header [8]byte
	if _, err := io.ReadFull(c, header[:]); err != nil {
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() || errors.Is(err, io.ErrUnexpectedEOF) {
			return 0, nil, err
		}
		return 0, nil, io.EOF
	}
	if string(header[:4]) != "salt" {
		return 0, nil, errors.New("what came is not a frame: " + hex.EncodeToString(header[:]))
	}
	body = make([]byte, binary.BigEndian.Uint16(header[6:]))
	_, err = io.ReadFull(c, body)
	return header[5], body, err
}

// answer reads a frame of the type wanted; false if the handshake is over, or went wrong.
func (o *outcome) answer(c net.Conn, want byte) ([]byte, bool) {
	typ, body, err := readFrame(c)
	switch {
	case err == io.EOF:
		o.silent = true
		return nil, false
	case err != nil:
		o.err = err
		return nil, false
	case typ == frameStatus && len(body) == 4:
		o.code = int(binary.BigEndian.Uint16(body))
	case typ != want:
		o.err = errors.New("an unexpected frame came")
	}
	return body, typ == want && o.err == nil
}

// split takes the first opaque16 field off b.
func split(b []byte) (field []byte) {
	if len(b) < 2 || len(b) < 2+int(binary.BigEndian.Uint16(b)) {
		return nil
	}
	return b[2 : 2+int(binary.BigEndian.Uint16(b))]
}

func keyData(k1, k2 *noise.CipherState) []byte {
	a, b := k1.UnsafeKey(), k2.UnsafeKey()
	return append(a[:], b[:]...)
}

// dial is the rogue as a client.
func (r *rogue) dial(addr string) (o outcome) {
	o.code = -1
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return outcome{code: -1, err: err}
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(testprog.Patience))
	if r.until != nil {
		go func() {
			<-r.until
			c.Close()
		}()
	}
	fail := func(err error) outcome { o.err = err; return o }
	hs, err := r.noise(true)
	if err != nil {
		return fail(err)
	}
	dk, err := mlkem.GenerateKey768()
	if err != nil {
		return fail(err)
	}
	ek := dk.EncapsulationKey().Bytes()
	if r.key != nil {
		ek = r.key(ek)
	}
	m1, _, _, err := hs.WriteMessage(nil, ek)
	if err != nil {
		return fail(err)
	}
	first := newFrame(frame1, m1)
	if r.send != nil {
		first = r.send(frame1, first)
	}
	o.id = handshakeID(first)
	if _, err := c.Write(first); err != nil {
		return fail(err)
	}
	m2, ok := o.answer(c, frame2)
	if !ok {
		return o
	}
	payload, _, _, err := hs.ReadMessage(nil, m2)
	if err != nil {
		return fail(err)
	}
	o.identity = split(payload[mlkem.CiphertextSize768:])
	psk, err := dk.Decapsulate(payload[:mlkem.CiphertextSize768])
	if err != nil {
		return fail(err)
	}
	if r.psk != nil {
		psk = r.psk(psk)
	}
	if err := hs.SetPresharedKey(psk); err != nil {
		return fail(err)
	}
	payload = testclaim.Join(r.identity, r.choice)
	if r.payload != nil {
		payload = r.payload(payload)
	}
	m3, k1, k2, err := hs.WriteMessage(nil, payload)
	if err != nil {
		return fail(err)
	}
	if err := r.write(c, frame3, m3); err != nil {
		return fail(err)
	}
	if o.answer(c, frameStatus); o.code == 0 {
		o.key = keyData(k1, k2)
		o.goesOn = more(c)
	}
	return o
}

// more reports whether the other side's record layer says something, rather than close the connection.
func more(c net.Conn) bool {
	n, _ := c.Read(make([]byte, 1))
	return n > 0
}

// handshakeID is that of a first frame, empty if it is not one.
func handshakeID(f []byte) string {
	const size = 8 + 1232
	if len(f) < size || string(f[:8]) != string(newFrame(frame1, make([]byte, 1232))[:8]) {
		return ""
	}
	sum := sha256.Sum256(f[:size])
	return hex.EncodeToString(sum[:8])
}

// listen is the rogue as a server for one connection.
func (r *rogue) listen(t testing.TB) (addr string, done <-chan outcome) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ch := make(chan outcome, 1)
	go func() {
		defer l.Close()
		c, err := l.Accept()
		if err != nil {
			ch <- outcome{code: -1, err: err}
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(testprog.Patience))
		ch <- r.serve(c)
	}()
	t.Cleanup(func() { l.Close() })
	return l.Addr().String(), ch
}

func (r *rogue) serve(c net.Conn) (o outcome) {
	o.code = -1
	fail := func(err error) outcome { o.err = err; return o }
	hs, err := r.noise(false)
	if err != nil {
		return fail(err)
	}
	m1, ok := o.answer(c, frame1)
	if !ok {
		return o
	}
	o.id = handshakeID(newFrame(frame1, m1))
	payload, _, _, err := hs.ReadMessage(nil, m1)
	if err != nil {
		return fail(err)
	}
	ek, err := mlkem.NewEncapsulationKey768(payload)
	if err != nil {
		return fail(err)
	}
	psk, ciphertext := ek.Encapsulate()
	payload = append(ciphertext, testclaim.Join(r.identity, r.offer)...)
	if r.payload != nil {
		payload = r.payload(payload)
	}
	m2, _, _, err := hs.WriteMessage(nil, payload)
	if err != nil {
		return fail(err)
	}
	if err := hs.SetPresharedKey(psk); err != nil {
		return fail(err)
	}
	if err := r.write(c, frame2, m2); err != nil {
		return fail(err)
	}
	m3, ok := o.answer(c, frame3)
	if !ok {
		return o
	}
	o.got3 = true
	payload, k1, k2, err := hs.ReadMessage(nil, m3)
	if err != nil {
		return fail(err)
	}
	o.identity, o.key = split(payload), keyData(k1, k2)
	if err := r.write(c, frameStatus, []byte{0, 0, 1, 1}); err != nil {
		return fail(err)
	}
	o.goesOn = more(c)
	return o
}

// offer and choice are docs/spec/protocol.md, section 6.
func offer(application, record []string, rpc [4]uint32, transport []string) (b []byte) {
	list := func(names []string) {
		b = append(b, byte(len(names)))
		for _, n := range names {
			b = append(append(b, byte(len(n))), n...)
		}
	}
	list(application)
	list(record)
	b = appendNumbers(b, rpc)
	list(transport)
	return b
}

func choice(application, record string, rpc [4]uint32, transport string) (b []byte) {
	name := func(n string) { b = append(append(b, byte(len(n))), n...) }
	name(application)
	name(record)
	b = appendNumbers(b, rpc)
	name(transport)
	return b
}

// appendNumbers appends RPC versions and a maximum frame size of 0.
func appendNumbers(b []byte, rpc [4]uint32) []byte {
	for _, n := range rpc {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return append(b, 0, 0, 0, 0)
}

// badKey is a DH function that names a key of its own as the public one of an ephemeral key pair.
type badKey struct {
	noise.DHFunc
	public []byte
}

func (d badKey) GenerateKeypair(random io.Reader) (noise.DHKey, error) {
	k, err := d.DHFunc.GenerateKeypair(random)
	if d.public != nil {
		k.Public = d.public
	}
	return k, err
}

// DH returns anything: what the other side makes of the key is what is tested.
func (d badKey) DH(private, public []byte) ([]byte, error) {
	if secret, err := d.DHFunc.DH(private, public); err == nil {
		return secret, nil
	}
	return make([]byte, 32), nil
}

// A claim is whom a rogue says that it is, with everything that should prove it.
type claim struct {
	*testclaim.Claim
	t      testing.TB
	w      *world
	static noise.DHKey
}

// goodClaim is one in which nothing is wrong: mallory@eve.test.
func (w *world) goodClaim(t testing.TB) *claim {
	t.Helper()
	static, err := noise.DH25519.GenerateKeypair(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &claim{testclaim.New(testca.MustIssue(t, w.known, testca.Leaf{Hosts: []string{"eve.test"}})), t, w, static}
	c.Account, c.StaticKey = "mallory", [32]byte(static.Public)
	return c
}

// issue has the CA certify eve.test, unless the leaf names other hosts, and the claim use that.
func (c *claim) issue(ca *testca.CA, l testca.Leaf) {
	c.t.Helper()
	if l.Hosts == nil && l.Subject.CommonName == "" {
		l.Hosts = []string{"eve.test"}
	}
	c.use(testca.MustIssue(c.t, ca, l))
}

// use has the claim use the certificate and send all that are above it.
func (c *claim) use(issued *testca.Issued) {
	c.Use(issued)
	c.Certificates = nil
	for rest := issued.CertPEM; ; {
		var b *pem.Block
		if b, rest = pem.Decode(rest); b == nil {
			return
		}
		c.Certificates = append(c.Certificates, b.Bytes)
	}
}

// intermediate makes a CA under ca.
func (c *claim) intermediate(ca *testca.CA, o testca.Options) *testca.CA {
	c.t.Helper()
	return testca.MustIntermediate(c.t, ca, o)
}

func (c *claim) rogue() *rogue { return newRogue(c.Identity(), c.static) }

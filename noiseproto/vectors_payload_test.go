package noiseproto

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/shared-altsd/shared-altsd/certbind"
)

// sealed returns the frame in the place (1 to 3) with another payload, validly encrypted by the side that sends it.
// edit, if not nil, changes that side before.
func (v *vector) sealed(t *testing.T, place int, payload []byte, edit func(*refParty)) []byte {
	t.Helper()
	s, initiator := &v.Responder, place != 2
	if initiator {
		s = &v.Initiator
	}
	ref := newRef(initiator, refName, v.Prologue, x25519Key(t, s.StaticPrivate), x25519Key(t, s.EphemeralPrivate))
	ref.psk = v.PSK
	if edit != nil {
		edit(ref)
	}
	for n := range place - 1 {
		if initiator == (n%2 == 0) {
			ref.write(n, v.Messages[n].Payload)
		} else if _, err := ref.read(n, v.Messages[n].Frame[headerSize:]); err != nil {
			t.Fatal(err)
		}
	}
	return frame(1, frameType(place), ref.write(place-1, payload))
}

// badPayloads returns payloads that are wrong in messages that decrypt.
func (v *vector) badPayloads(t *testing.T) (list []negative) {
	add := func(place int, name string, payload []byte, edit func(*refParty)) {
		list = append(list, negative{Name: fmt.Sprintf("payload %d: %s", place, name), Place: place,
			Input: v.sealed(t, place, payload, edit)})
	}
	key := func(coefficient int) []byte { // 3329, the least that is out of range, in the place of a coefficient
		b := slices.Clone([]byte(v.Encaps))
		at := coefficient / 2 * 3
		if coefficient%2 == 0 {
			b[at], b[at+1] = 0x01, b[at+1]&0xf0|0x0d
		} else {
			b[at+1], b[at+2] = b[at+1]&0x0f|0x10, 0xd0
		}
		return b
	}
	add(1, "first coefficient of the encapsulation key is 3329", key(0), nil)
	add(1, "last coefficient of the encapsulation key is 3329", key(767), nil)
	add(1, "ephemeral key of low order", v.Encaps, func(r *refParty) { r.ePub = make([]byte, 32) })

	rpc := func(maxMajor, minMajor uint32) RPCVersions {
		return RPCVersions{Version{maxMajor, 0}, Version{minMajor, 0}}
	}
	long := bytes.Repeat([]byte("a"), 65)
	for _, place := range []int{2, 3} {
		own, other := &v.Responder, &v.Initiator
		var start []byte // what stands before the identity
		if place == 2 {
			start = v.Ciphertext
		} else {
			own, other = other, own
		}
		parts := func(identity, negotiation []byte) []byte {
			return opaque16(opaque16(slices.Clone(start), identity), negotiation)
		}
		whole := parts(own.Identity, own.Negotiation)
		plain := func(name string, payload []byte) { add(place, name, payload, nil) }
		plain("cut by a byte", whole[:len(whole)-1])
		plain("a byte after", append(slices.Clone(whole), 0))
		plain("identity empty", parts(nil, own.Negotiation))
		plain("identity of 21505 bytes", parts(make([]byte, 21505), own.Negotiation))
		plain("negotiation empty", parts(own.Identity, nil))
		plain("negotiation of 2049 bytes", parts(own.Identity, make([]byte, 2049)))
		past := slices.Clone(whole)
		past[len(start)] = 0x50
		plain("identity longer than the payload", past)

		identity := func(name string, edit func(id *certbind.Identity)) []byte {
			id, err := certbind.ParseIdentity(own.Identity)
			if err != nil {
				t.Fatal(err)
			}
			id.Certificates[0], id.Statement, id.Signature = slices.Clone(id.Certificates[0]), slices.Clone(id.Statement),
				slices.Clone(id.Signature)
			edit(id)
			b, err := id.Marshal()
			if err != nil {
				t.Fatal(err)
			}
			plain(name, parts(b, own.Negotiation))
			return b
		}
		plain("identity with a byte after", parts(append(slices.Clone([]byte(own.Identity)), 0), own.Negotiation))
		plain("identity of the other side", parts(other.Identity, own.Negotiation))
		broken := identity("last bit of the signature", func(id *certbind.Identity) {
			id.Signature[len(id.Signature)-1] ^= 1
		})
		identity("last bit of the certificate", func(id *certbind.Identity) {
			id.Certificates[0][len(id.Certificates[0])-1] ^= 1
		})
		identity("last bit of the statement", func(id *certbind.Identity) { id.Statement[len(id.Statement)-1] ^= 1 })
		identity("format version of the statement", func(id *certbind.Identity) { id.Statement[2] = 2 })
		identity("a byte after the statement", func(id *certbind.Identity) { id.Statement = append(id.Statement, 0) })
		identity("no certificate but the other side's", func(id *certbind.Identity) {
			id.Certificates[0] = other.Certificate
		})
		plain("identity refused beside a malformed negotiation", parts(broken, []byte{0xff}))

		negotiation := func(name string, b []byte) { plain(name, parts(own.Identity, b)) }
		negotiation("negotiation cut by a byte", own.Negotiation[:len(own.Negotiation)-1])
		negotiation("negotiation with a byte after", append(slices.Clone([]byte(own.Negotiation)), 0))
		if place == 2 {
			offer := func(name string, edit func(*Params)) {
				p := own.Params.params()
				edit(&p)
				negotiation("offer "+name, rawOffer(p))
			}
			offer("without a common application protocol", func(p *Params) { p.ApplicationProtocols = []string{"h3"} })
			offer("without a common record protocol", func(p *Params) { p.RecordProtocols = []string{"ALTSRP_GMAC_128"} })
			offer("of too new RPC versions", func(p *Params) { p.RPCVersions = rpc(9, 3) })
			offer("of too old RPC versions", func(p *Params) { p.RPCVersions = rpc(2, 1) })
			offer("without record protocol and RPC version in common", func(p *Params) {
				p.RecordProtocols, p.RPCVersions = []string{"ALTSRP_GMAC_128"}, rpc(9, 3)
			})
			offer("without anything in common", func(p *Params) {
				p.ApplicationProtocols, p.RecordProtocols, p.RPCVersions = []string{"h3"}, []string{"x"}, rpc(9, 3)
			})
			offer("of nothing", func(p *Params) { p.ApplicationProtocols = nil })
			offer("of one thing twice", func(p *Params) { p.ApplicationProtocols = []string{"grpc", "grpc"} })
			offer("of a transport protocol twice", func(p *Params) { p.TransportProtocols = []string{"x", "x"} })
			offer("with a space", func(p *Params) { p.ApplicationProtocols = []string{"grpc", "a b"} })
			offer("with DEL", func(p *Params) { p.RecordProtocols = []string{RecordProtocol, "\x7f"} })
			offer("of 65 bytes", func(p *Params) { p.ApplicationProtocols = []string{"grpc", string(long)} })
			offer("of 17", func(p *Params) {
				for n := range 16 {
					p.ApplicationProtocols = append(p.ApplicationProtocols, fmt.Sprint("a", n))
				}
			})
			for _, target := range []string{"bob@alpha.example.com", "alice@beta.example.com"} {
				plain("target "+target, whole)
				list[len(list)-1].Target = target
				plain("target "+target+" beside a malformed offer", parts(own.Identity, []byte{0xff}))
				list[len(list)-1].Target = target
			}
			plain("target bob@beta.example.com and a malformed offer", parts(own.Identity, []byte{0xff}))
			list[len(list)-1].Target = "bob@beta.example.com"
			continue
		}
		chosen := func(name string, edit func(*choice)) {
			c := choice{"grpc", RecordProtocol, own.Params.params().RPCVersions, 0, ""}
			edit(&c)
			negotiation("choice "+name, rawChoice(c))
		}
		chosen("of an application protocol not offered", func(c *choice) { c.application = "h2" })
		chosen("of a record protocol not offered", func(c *choice) { c.record = "ALTSRP_GMAC_128" })
		chosen("of a transport protocol not offered", func(c *choice) { c.transport = "udp" })
		chosen("with bytes that no offer can have", func(c *choice) { c.application = "grpc\x00\xff" })
		chosen("with a transport protocol that no offer can have", func(c *choice) { c.transport = " " })
		chosen("of too new RPC versions", func(c *choice) { c.rpcVersions = rpc(9, 3) })
		chosen("of reversed RPC versions", func(c *choice) { c.rpcVersions = rpc(0, 9) })
		chosen("not offered, with too new RPC versions", func(c *choice) { c.record, c.rpcVersions = "x", rpc(9, 3) })
		chosen("without an application protocol", func(c *choice) { c.application = "" })
		chosen("without a record protocol", func(c *choice) { c.record = "" })
		chosen("of an application protocol of 65 bytes", func(c *choice) { c.application = string(long) })
		chosen("of a transport protocol of 65 bytes", func(c *choice) { c.transport = string(long) })
		add(3, "another psk", whole, func(r *refParty) { r.psk = make([]byte, 32) })
		add(3, "static key of low order", whole, func(r *refParty) { r.sPub = make([]byte, 32) })
	}
	return list
}

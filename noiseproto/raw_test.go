package noiseproto

import (
	"encoding/binary"
	"slices"

	"github.com/shared-altsd/shared-altsd/internal/testclaim"
)

// The encodings of docs/spec/protocol.md, sections 4 and 6, by hand: what they are given may be out of every bound.

func opaque8(b []byte, v string) []byte { return testclaim.Opaque8(b, []byte(v)) }

var opaque16 = testclaim.Opaque16

func rawOffer(p Params) []byte {
	return slices.Concat(rawList(p.ApplicationProtocols), rawList(p.RecordProtocols),
		rawRPC(p.RPCVersions, p.MaxFrameSize), rawList(p.TransportProtocols))
}

func rawChoice(c choice) []byte {
	b := append(opaque8(opaque8(nil, c.application), c.record), rawRPC(c.rpcVersions, c.maxFrameSize)...)
	return opaque8(b, c.transport)
}

func rawList(list []string) []byte {
	b := []byte{byte(len(list))}
	for _, s := range list {
		b = opaque8(b, s)
	}
	return b
}

func rawRPC(r RPCVersions, maxFrame uint32) (b []byte) {
	for _, n := range [...]uint32{r.Max.Major, r.Max.Minor, r.Min.Major, r.Min.Minor, maxFrame} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return b
}

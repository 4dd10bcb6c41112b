package noiseproto

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// RecordProtocol is the only record protocol that version 1 knows, offers and chooses.
const RecordProtocol = "ALTSRP_GCM_AES128_REKEY"

// The bounds of docs/protocol.md, sections 4 and 6.
const (
	maxListEntries   = 16
	maxEntrySize     = 64   // bytes of a protocol's name
	maxNegotiateSize = 2048 // bytes of an offer or a choice
)

// A Version is a version of gRPC's RPC protocol over ALTS.
type Version struct{ Major, Minor uint32 }

func (v Version) compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Major, w.Major), cmp.Compare(v.Minor, w.Minor))
}

// RPCVersions is the range of RPC protocol versions that an application speaks, both ends included.
type RPCVersions struct{ Max, Min Version }

// common reports whether some version is in both ranges: the greater minimum is not over the lesser maximum.
func (r RPCVersions) common(s RPCVersions) bool {
	lo, hi := r.Min, r.Max
	if s.Min.compare(lo) > 0 {
		lo = s.Min
	}
	if s.Max.compare(hi) < 0 {
		hi = s.Max
	}
	return lo.compare(hi) <= 0
}

// Params is what the local application offers (responder) or prefers (initiator). docs/protocol.md, section 6. Lists
// are in order of preference.
type Params struct {
	ApplicationProtocols []string // 1 to 16, each of 1 to 64 bytes from 0x21 to 0x7e
	RecordProtocols      []string // must hold RecordProtocol; all others are left out
	RPCVersions          RPCVersions
	MaxFrameSize         uint32   // bytes; 0: the application named none
	TransportProtocols   []string // 0 to 16, as the application protocols
}

// local gives p as it can be offered: known record protocols only, no entry twice. The error says what the application
// must change.
func (p Params) local() (Params, error) {
	if !slices.Contains(p.RecordProtocols, RecordProtocol) {
		return p, reason.Errorf(reason.NoRecordProtocol,
			"the application does not name %s, the only record protocol that this daemon knows", RecordProtocol)
	}
	p.RecordProtocols = []string{RecordProtocol}
	if len(p.ApplicationProtocols) == 0 {
		return p, reason.Errorf(reason.NoApplicationProtocol,
			"the application names no application protocol; gRPC names \"grpc\"")
	}
	var err error
	if p.ApplicationProtocols, err = localList("application", p.ApplicationProtocols); err != nil {
		return p, err
	}
	p.TransportProtocols, err = localList("transport", p.TransportProtocols)
	return p, err
}

func localList(what string, names []string) ([]string, error) {
	list := make([]string, 0, min(len(names), maxListEntries))
	for _, n := range names {
		if !validEntry(n) {
			return nil, reason.Errorf(reason.LocalAccount,
				"the application names %s protocol %.80q, it must have 1 to %d printable ASCII characters without spaces",
				what, n, maxEntrySize)
		}
		if slices.Contains(list, n) {
			continue
		}
		if len(list) == maxListEntries {
			return nil, reason.Errorf(reason.LocalAccount, "the application names more than %d %s protocols", maxListEntries,
				what)
		}
		list = append(list, n)
	}
	return list, nil
}

// validEntry reports whether s has 1 to 64 bytes from 0x21 to 0x7e.
func validEntry(s string) bool {
	for i := range len(s) {
		if s[i] < 0x21 || s[i] > 0x7e {
			return false
		}
	}
	return len(s) >= 1 && len(s) <= maxEntrySize
}

// appendOffer appends the encoding of p, which local has passed.
func appendOffer(b []byte, p Params) []byte {
	b = appendList(b, p.ApplicationProtocols)
	b = appendList(b, p.RecordProtocols)
	b = appendRPC(b, p.RPCVersions, p.MaxFrameSize)
	return appendList(b, p.TransportProtocols)
}

func appendList(b []byte, list []string) []byte {
	b = append(b, byte(len(list)))
	for _, s := range list {
		b = appendOpaque8(b, s)
	}
	return b
}

func appendRPC(b []byte, r RPCVersions, maxFrame uint32) []byte {
	for _, v := range [...]uint32{r.Max.Major, r.Max.Minor, r.Min.Major, r.Min.Minor, maxFrame} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// parseOffer reads an offer, the whole of b.
func parseOffer(b []byte) (Params, error) {
	d := decoder{b: b}
	p := Params{
		ApplicationProtocols: d.list("offer of application protocols", 1),
		RecordProtocols:      d.list("offer of record protocols", 1),
		RPCVersions:          d.rpcVersions(),
		MaxFrameSize:         d.u32("maximum frame size"),
		TransportProtocols:   d.list("offer of transport protocols", 0),
	}
	if err := d.end("offer"); err != nil {
		return Params{}, err
	}
	return p, nil
}

// list reads from least to 16 names, none twice.
func (d *decoder) list(what string, least int) []string {
	n := d.u8(what)
	if d.err == nil && (n < least || n > maxListEntries) {
		d.err = reason.Errorf(reason.Malformed, "the peer's %s has %d entries, it must have %d to %d", what, n, least,
			maxListEntries)
	}
	if d.err != nil {
		return nil
	}
	list := make([]string, 0, n)
	for range n {
		s := string(d.opaque(what, 1, 1, maxEntrySize))
		if d.err == nil && !validEntry(s) {
			d.err = reason.Errorf(reason.Malformed, "the peer's %s holds a character that is not printable ASCII", what)
		}
		if d.err == nil && slices.Contains(list, s) {
			d.err = reason.Errorf(reason.Malformed, "the peer's %s holds an entry twice", what)
		}
		if d.err != nil {
			return nil
		}
		list = append(list, s)
	}
	return list
}

func (d *decoder) rpcVersions() (r RPCVersions) {
	for _, v := range [...]*uint32{&r.Max.Major, &r.Max.Minor, &r.Min.Major, &r.Min.Minor} {
		*v = d.u32("RPC versions")
	}
	return r
}

// A choice is what the initiator answers to an offer.
type choice struct {
	application, record string
	rpcVersions         RPCVersions
	maxFrameSize        uint32
	transport           string // empty if there is none in common
}

func appendChoice(b []byte, c choice) []byte {
	b = appendOpaque8(b, c.application)
	b = appendOpaque8(b, c.record)
	b = appendRPC(b, c.rpcVersions, c.maxFrameSize)
	return appendOpaque8(b, c.transport)
}

// parseChoice reads a choice, the whole of b. Whether its names were offered is for check to say.
func parseChoice(b []byte) (choice, error) {
	d := decoder{b: b}
	c := choice{
		application:  string(d.opaque("choice of an application protocol", 1, 1, maxEntrySize)),
		record:       string(d.opaque("choice of a record protocol", 1, 1, maxEntrySize)),
		rpcVersions:  d.rpcVersions(),
		maxFrameSize: d.u32("maximum frame size"),
		transport:    string(d.opaque("choice of a transport protocol", 1, 0, maxEntrySize)),
	}
	if err := d.end("choice"); err != nil {
		return choice{}, err
	}
	return c, nil
}

// choose picks, for an initiator that prefers mine, from the peer's offer: the first entry of each of its own lists
// that the offer has.
func choose(mine, offer Params) (choice, error) {
	c := choice{
		application:  first(mine.ApplicationProtocols, offer.ApplicationProtocols),
		record:       first(mine.RecordProtocols, offer.RecordProtocols),
		rpcVersions:  mine.RPCVersions,
		maxFrameSize: mine.MaxFrameSize,
		transport:    first(mine.TransportProtocols, offer.TransportProtocols),
	}
	switch {
	case c.application == "":
		return choice{}, reason.Errorf(reason.NoApplicationProtocol,
			"no application protocol in common: this application speaks %q, the peer's %q", mine.ApplicationProtocols,
			offer.ApplicationProtocols)
	case c.record == "":
		return choice{}, reason.Errorf(reason.NoRecordProtocol,
			"no record protocol in common: this daemon speaks %q, the peer offers %q", mine.RecordProtocols,
			offer.RecordProtocols)
	}
	return c, commonRPC(mine.RPCVersions, offer.RPCVersions)
}

// first gives the first entry of mine that is in theirs, or the empty string.
func first(mine, theirs []string) string {
	if i := slices.IndexFunc(mine, func(s string) bool { return slices.Contains(theirs, s) }); i >= 0 {
		return mine[i]
	}
	return ""
}

// check judges a choice for the responder that offered mine: all of it was offered, and an RPC version is in common.
func (c choice) check(mine Params) error {
	what := ""
	switch {
	case !slices.Contains(mine.ApplicationProtocols, c.application):
		what = "an application"
	case !slices.Contains(mine.RecordProtocols, c.record):
		what = "a record"
	case c.transport != "" && !slices.Contains(mine.TransportProtocols, c.transport):
		what = "a transport"
	}
	if what != "" {
		return reason.Errorf(reason.BadChoice, "the peer chose %s protocol that it was not offered; its daemon is at fault",
			what)
	}
	return commonRPC(mine.RPCVersions, c.rpcVersions)
}

func commonRPC(mine, theirs RPCVersions) error {
	if mine.common(theirs) {
		return nil
	}
	return reason.Errorf(reason.NoRPCVersion,
		"no RPC protocol version in common: this application speaks %d.%d to %d.%d, the peer's %d.%d to %d.%d; "+
			"upgrade the older gRPC library",
		mine.Min.Major, mine.Min.Minor, mine.Max.Major, mine.Max.Minor,
		theirs.Min.Major, theirs.Min.Minor, theirs.Max.Major, theirs.Max.Minor)
}

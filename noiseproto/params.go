package noiseproto

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/wire"
)

// RecordProtocol is the only record protocol that version 1 knows, offers and chooses.
const RecordProtocol = "ALTSRP_GCM_AES128_REKEY"

// The bounds of docs/spec/protocol.md, sections 4 and 6.
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

// Params is what the local application offers (responder) or prefers (initiator). docs/spec/protocol.md, section 6. Lists
// are in order of preference.
type Params struct {
	ApplicationProtocols []string // 1 to 16, each of 1 to 64 bytes from 0x21 to 0x7e
	RecordProtocols      []string // must hold RecordProtocol; all others are left out
	RPCVersions          RPCVersions
	MaxFrameSize         uint32   // bytes; 0: the application named none
	TransportProtocols   []string // 0 to 16, as the application protocols
}

// local returns p as it can be offered: known record protocols only, no entry twice. The error says what the
// application must change.
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
	list, err := Protocols(names)
	if err != nil {
		return nil, reason.Errorf(reason.LocalAccount, "the application's list of %s protocols has %w", what, err)
	}
	return list, nil
}

// Protocols returns a list of protocols as an application may name them, without what it holds twice. The error says
// what the list has that it may not have.
func Protocols(names []string) ([]string, error) {
	var list []string
	for _, n := range names {
		if slices.Contains(list, n) {
			continue
		}
		if !validEntry(n) {
			return nil, fmt.Errorf("the entry %.80q; each must be 1 to %d printable ASCII characters without spaces", n,
				maxEntrySize)
		}
		if len(list) == maxListEntries {
			return nil, fmt.Errorf("more than %d entries", maxListEntries)
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

// marshalOffer encodes p, which local has passed.
func marshalOffer(p Params) ([]byte, error) {
	var w wire.Writer
	writeList(&w, "application protocols", p.ApplicationProtocols)
	writeList(&w, "record protocols", p.RecordProtocols)
	writeRPC(&w, p.RPCVersions, p.MaxFrameSize)
	writeList(&w, "transport protocols", p.TransportProtocols)
	return w.Bytes()
}

func writeList(w *wire.Writer, field string, list []string) {
	w.U8(byte(len(list)))
	for _, s := range list {
		w.Opaque8(field, []byte(s), 1, maxEntrySize)
	}
}

func writeRPC(w *wire.Writer, r RPCVersions, maxFrame uint32) {
	for _, v := range [...]uint32{r.Max.Major, r.Max.Minor, r.Min.Major, r.Min.Minor, maxFrame} {
		w.U32(v)
	}
}

// parseOffer reads an offer, the whole of b.
func parseOffer(b []byte) (Params, error) {
	r := wire.NewReader(b)
	p := Params{
		ApplicationProtocols: readList(r, "application protocols", 1),
		RecordProtocols:      readList(r, "record protocols", 1),
		RPCVersions:          readRPC(r),
		MaxFrameSize:         r.U32("maximum frame size"),
		TransportProtocols:   readList(r, "transport protocols", 0),
	}
	if err := r.End(); err != nil {
		return Params{}, malformed("offer", err)
	}
	return p, nil
}

// readList reads from least to 16 names, none twice.
func readList(r *wire.Reader, field string, least int) []string {
	n := int(r.U8(field))
	if n < least || n > maxListEntries {
		r.Fail(fmt.Errorf("the field %q has %d entries, it must have %d to %d", field, n, least, maxListEntries))
	}
	list := make([]string, 0, min(n, maxListEntries))
	for range n {
		s := string(r.Opaque8(field, 1, maxEntrySize))
		switch {
		case r.Err() != nil:
			return nil
		case !validEntry(s):
			r.Fail(fmt.Errorf("the field %q holds a character that is not printable ASCII", field))
		case slices.Contains(list, s):
			r.Fail(fmt.Errorf("the field %q holds an entry twice", field))
		}
		list = append(list, s)
	}
	return list
}

func readRPC(r *wire.Reader) (v RPCVersions) {
	for _, n := range [...]*uint32{&v.Max.Major, &v.Max.Minor, &v.Min.Major, &v.Min.Minor} {
		*n = r.U32("RPC versions")
	}
	return v
}

// A choice is what the initiator answers to an offer.
type choice struct {
	application, record string
	rpcVersions         RPCVersions
	maxFrameSize        uint32
	transport           string // empty if there is none in common
}

func marshalChoice(c choice) ([]byte, error) {
	var w wire.Writer
	w.Opaque8("application protocol", []byte(c.application), 1, maxEntrySize)
	w.Opaque8("record protocol", []byte(c.record), 1, maxEntrySize)
	writeRPC(&w, c.rpcVersions, c.maxFrameSize)
	w.Opaque8("transport protocol", []byte(c.transport), 0, maxEntrySize)
	return w.Bytes()
}

// parseChoice reads a choice, the whole of b. Whether its names were offered is for check to say.
func parseChoice(b []byte) (choice, error) {
	r := wire.NewReader(b)
	c := choice{
		application:  string(r.Opaque8("application protocol", 1, maxEntrySize)),
		record:       string(r.Opaque8("record protocol", 1, maxEntrySize)),
		rpcVersions:  readRPC(r),
		maxFrameSize: r.U32("maximum frame size"),
		transport:    string(r.Opaque8("transport protocol", 0, maxEntrySize)),
	}
	if err := r.End(); err != nil {
		return choice{}, malformed("choice", err)
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

// first returns the first entry of mine that is in theirs, or the empty string.
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

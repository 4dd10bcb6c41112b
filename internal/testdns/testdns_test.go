package testdns

import (
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// ask returns what a resolver answers: its code, whether it vouches for it, and how many TLSA records there are.
func ask(t *testing.T, d *DNS, resolver, name string) (code dnsmessage.RCode, ad bool, records int) {
	t.Helper()
	const tlsaType = 52
	var opt dnsmessage.ResourceHeader
	if err := opt.SetEDNS0(1232, dnsmessage.RCodeSuccess, true); err != nil {
		t.Fatal(err)
	}
	q := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true},
		Questions:   []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: tlsaType, Class: dnsmessage.ClassINET}},
		Additionals: []dnsmessage.Resource{{Header: opt, Body: &dnsmessage.OPTResource{}}}}
	b, err := q.Pack()
	if err != nil {
		t.Fatal(err)
	}
	c, err := d.Dial(t.Context(), "udp", resolver)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := c.Write(b); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var m dnsmessage.Message
	if err := m.Unpack(buf[:n]); err != nil {
		t.Fatal(err)
	}
	for _, a := range m.Answers {
		if a.Header.Type == tlsaType {
			records++
		}
	}
	return m.RCode, m.AuthenticData, records
}

const record = "_shared-alts.alpha IN TLSA 3 1 1 0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF"

// Each kind of zone is to a validator what it says, and looks well to one that does not validate.
func TestKinds(t *testing.T) {
	kinds := map[string]Kind{"signed.example": Signed, "unsigned.example": Unsigned, "expired.example": Expired, "notyet.example": NotYet,
		"forged.example": Forged, "listed.example": ListedKey, "stripped.example": Stripped, "other.example": OtherParent}
	var zones []Zone
	for name, kind := range kinds {
		zones = append(zones, Zone{Name: name, Kind: kind, Records: []string{record}})
	}
	d := New(t, zones...)
	for name, kind := range kinds {
		code, ad, records := ask(t, d, Resolver, "_shared-alts.alpha."+name+".")
		wantCode, wantRecords := dnsmessage.RCodeServerFailure, 0
		if kind == Signed || kind == Unsigned {
			wantCode, wantRecords = dnsmessage.RCodeSuccess, 1
		}
		if code != wantCode || ad != (kind == Signed) || records != wantRecords {
			t.Errorf("%s: %v, AD %v, %d records", name, code, ad, records)
		}
		if code, ad, records := ask(t, d, Careless, "_shared-alts.alpha."+name+"."); code != dnsmessage.RCodeSuccess || ad || records != 1 {
			t.Errorf("%s without validation: %v, AD %v, %d records", name, code, ad, records)
		}
	}
	// A zone changes, and is broken and mended, while all run.
	for _, tt := range []struct {
		kind    Kind
		records []string
		code    dnsmessage.RCode
		want    int
	}{
		{Signed, nil, dnsmessage.RCodeNameError, 0}, {Unsigned, []string{record}, dnsmessage.RCodeSuccess, 1},
		{Expired, []string{record}, dnsmessage.RCodeServerFailure, 0},
		{Signed, []string{record, "_shared-alts.alpha IN TLSA 3 1 1 00"}, dnsmessage.RCodeSuccess, 2},
	} {
		d.Set(t, "signed.example", tt.kind, tt.records...)
		if code, ad, records := ask(t, d, Resolver, "_shared-alts.alpha.signed.example."); code != tt.code || ad != (tt.kind == Signed) ||
			records != tt.want {
			t.Errorf("kind %d, %d records: %v, AD %v, %d records", tt.kind, len(tt.records), code, ad, records)
		}
	}
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Do(func() error {
		if its, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || its == own {
			return fmt.Errorf("its network is %s, this process has %s: %v", its, own, err)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	d.StopResolver()
	if d.answers(Resolver) {
		t.Error("the resolver that was stopped answers")
	}
	d.StartResolver(t)
	d.StopServer()
	d.Flush(t)
	if d.answers(authoritative) {
		t.Error("the server that was stopped answers")
	}
	d.StartServer(t)
}

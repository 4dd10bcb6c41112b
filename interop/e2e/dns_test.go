package e2e

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testdns"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// resolver is the account of the companions that ask DNS.
var resolver = account{"resolver", 61050}

// A dnsWorld is machines that trust each other by DNS: zones of its own, a resolver that validates them, the companion that
// asks it, and daemons without a network.
type dnsWorld struct {
	*world
	*testdns.DNS
	t          testing.TB
	zones      []string
	companions map[*daemon]*resolving
	records    map[string][]string // by zone
}

func newDNSWorld(t testing.TB, zones ...testdns.Zone) *dnsWorld {
	t.Helper()
	dw := &dnsWorld{world: theWorld(t), t: t, DNS: testdns.New(t, zones...), records: map[string][]string{}, companions: map[*daemon]*resolving{}}
	for _, z := range zones {
		dw.zones = append(dw.zones, z.Name)
		dw.records[z.Name] = z.Records
	}
	return dw
}

// A resolving is a machine's companion, as an account of its own, in the network of the resolver.
type resolving struct {
	dw     *dnsWorld
	socket string
	run    *testprog.Process
}

func (dw *dnsWorld) companion() *resolving {
	dw.t.Helper()
	dir, err := os.MkdirTemp(dw.dir, "resolving-")
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, int(resolver.uid), int(resolver.uid)))
	}
	if err != nil {
		dw.t.Fatal(err)
	}
	c := &resolving{dw: dw, socket: filepath.Join(dir, "socket")}
	c.start()
	return c
}

// start returns when the companion can be asked.
func (c *resolving) start() {
	c.dw.t.Helper()
	os.Remove(c.socket)
	cmd := exec.Command(c.dw.program, "resolve", "--resolver", testdns.Resolver, "--socket", c.socket)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: resolver.uid, Gid: resolver.uid}}
	cmd.Env = []string{"GORACE=halt_on_error=1"}
	p, err := c.dw.DNS.Start(cmd)
	if err != nil {
		c.dw.t.Fatal(err)
	}
	c.run = p
	c.dw.t.Cleanup(func() {
		p.Kill()
		if c.dw.t.Failed() {
			c.dw.t.Logf("a companion:\n%s", p.Log)
		}
	})
	for end := time.Now().Add(testprog.Patience); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(c.socket); err == nil {
			return
		}
		if time.Now().After(end) {
			c.dw.t.Fatalf("a companion is not ready:\n%s", p.Log)
		}
	}
}

// machine starts the daemon of a machine that trusts DNS alone, without a network, until the test ends.
func (dw *dnsWorld) machine(name string, leaf testca.Leaf, flags ...string) *daemon {
	dw.t.Helper()
	if leaf.Hosts == nil && leaf.Subject.CommonName == "" {
		leaf.Hosts = []string{name}
	}
	leaf.SelfSigned = true
	return dw.machineOf(name, testca.MustIssue(dw.t, dw.known, leaf), flags...)
}

func (dw *dnsWorld) machineOf(name string, issued *testca.Issued, flags ...string) *daemon {
	dw.t.Helper()
	c := dw.companion()
	d, err := dw.machineNamed(name+filepath.Base(filepath.Dir(c.socket)), name, issued, append([]string{"--ca", strings.Join(dw.zones, ",") + "=dane",
		"--resolver-socket", c.socket}, flags...)...)
	if err != nil {
		dw.t.Fatal(err)
	}
	d.alone = true
	dw.companions[d] = c
	if err := d.start(); err != nil {
		dw.t.Fatal(err)
	}
	dw.t.Cleanup(func() {
		if err := d.end(); err != nil {
			dw.t.Error(err)
		}
		if dw.t.Failed() {
			dw.t.Logf("the daemon of %s:\n%s", name, d.said())
		}
	})
	return d
}

// credentials is the file of a machine's key and certificate.
func (d *daemon) credentials() string {
	for i, arg := range d.args {
		if arg == "--credentials" {
			return d.args[i+1]
		}
	}
	return ""
}

// tlsa returns the records that shared-altsd tlsa prints.
func (dw *dnsWorld) tlsa(credentials string, flags ...string) (records []string) {
	dw.t.Helper()
	var errs bytes.Buffer
	cmd := exec.Command(dw.program, append([]string{"tlsa", "--credentials", credentials}, flags...)...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		dw.t.Fatalf("tlsa: %v: %s", err, errs.String())
	}
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, ";") {
			records = append(records, strings.TrimSpace(line))
		}
	}
	return records
}

// publish adds records to a zone.
func (dw *dnsWorld) publish(zone string, kind testdns.Kind, records ...string) {
	dw.t.Helper()
	dw.records[zone] = append(dw.records[zone], records...)
	dw.Set(dw.t, zone, kind, dw.records[zone]...)
}

// call has alice on one machine call bob on another.
func (dw *dnsWorld) call(from, to *daemon, addr string, more ...func(*order)) report {
	dw.t.Helper()
	o := order{Op: "call", Socket: from.socket, Addr: addr, Targets: []string{bob.on(to)}}
	for _, f := range more {
		f(&o)
	}
	return dw.as(dw.t, alice).do(dw.t, o)
}

// byAltscreds has the client use this project's library, which tells the peer why it is refused; stock grpc-go hangs up.
func byAltscreds(o *order) { o.Altscreds = true }

// shown runs a command that tells what the daemon or the files are, and returns what it says.
func (dw *dnsWorld) shown(argv ...string) string {
	dw.t.Helper()
	out, err := exec.Command(dw.program, argv...).CombinedOutput()
	if _, failed := err.(*exec.ExitError); err != nil && !failed {
		dw.t.Fatal(err)
	}
	return string(out)
}

func (dw *dnsWorld) status(d *daemon) string { return dw.shown("status", "--socket", d.socket) }

// Two machines whose self-signed certificates their zone vouches for: stock clients and altscreds' see each other's accounts.
// What a machine has from the first shared-altsd serves as well.
func TestDNS(t *testing.T) {
	dw := newDNSWorld(t, testdns.Zone{Name: "good.example"})
	one := dw.machine("one.good.example", testca.Leaf{})
	two := dw.machine("two.good.example", testca.Leaf{KeyType: testca.Ed25519})
	old := dw.machine("old.good.example", testca.Leaf{Subject: pkix.Name{CommonName: "Old.good.example"}, KeyType: testca.RSA4096, IsCA: true,
		NoKeyUsage: true, NoEKU: true})
	dw.publish("good.example", testdns.Signed, dw.tlsa(one.credentials(), "--ttl", "5m")...)
	dw.publish("good.example", testdns.Signed, append(dw.tlsa(two.credentials(), "--ttl", "5m", "--selector", "0", "--matching", "2"),
		"_shared-alts.two 300 IN TLSA 2 0 1 0123", "_shared-alts.two 300 IN TLSA 3 1 1 "+strings.Repeat("ab", 32))...)
	dw.publish("good.example", testdns.Signed, dw.tlsa(old.credentials(), "--ttl", "5m", "--selector", "0")...)
	for _, server := range []*daemon{two, old} {
		for _, server1 := range []bool{false, true} {
			r := dw.as(t, bob).do(t, order{Op: "listen", Socket: server.socket, Altscreds: server1})
			if r.Code != codes.OK {
				t.Fatal(r.Text)
			}
			for _, client := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/altscreds %v %v", server.machine, client, server1), func(t *testing.T) {
					wantWhom(t, dw.call(one, server, r.Addr, func(o *order) { o.Altscreds = client }), alice, bob, one, server)
				})
			}
		}
	}
	// Who has been verified costs no lookup.
	addr := dw.as(t, bob).listen(t, two, 0)
	if r := dw.as(t, alice).do(t, order{Op: "channels", Socket: one.socket, Addr: addr, Targets: []string{bob.on(two)}, N: 50}); r.Done != 50 {
		t.Errorf("%d of 50 channels: %s", r.Done, r.Text)
	}
	for _, d := range []*daemon{one, two} {
		if s := dw.status(d); !strings.Contains(s, "dns          vouches for machines under good.example") || !strings.Contains(s, "validates, since") {
			t.Errorf("status: %s", s)
		}
	}
	if s := dw.status(one); !strings.Contains(s, "lookups: 2 secure;") {
		t.Errorf("status of whom two machines were verified: %s", s)
	}
	out := dw.shown("check", "--credentials", two.credentials(), "--ca", "good.example=dane", "--resolver-socket", dw.companions[two].socket)
	for _, want := range []string{"vouches for this machine", "is passed over by all", "1 other certificates or keys", "a peer with the same --ca would accept"} {
		if !strings.Contains(out, want) {
			t.Errorf("check does not say %q:\n%s", want, out)
		}
	}
}

// A dnsRefusal is one way in which DNS does not vouch for a machine.
type dnsRefusal struct {
	what    string
	machine string
	records []string // of the machine; MINE is what shared-altsd tlsa prints
	code    reason.Code
	says    string // words of the refusing daemon
}

var dnsRefusals = []dnsRefusal{
	{"a zone that is not signed", "m.unsigned.example", []string{"MINE"}, reason.DNSUnknown, "what DNS says at _shared-alts.m.unsigned.example is not signed"},
	{"signatures that are over", "m.expired.example", []string{"MINE"}, reason.DNSUnknown, "m.expired.example is not to be believed"},
	{"signatures that have not begun", "m.notyet.example", []string{"MINE"}, reason.DNSUnknown, "m.notyet.example is not to be believed"},
	{"records that were changed after they were signed", "m.forged.example", []string{"MINE"}, reason.DNSUnknown, "m.forged.example is not to be believed"},
	{"signatures by a key for which the parent zone does not vouch", "m.listed.example", []string{"MINE"}, reason.DNSUnknown, "m.listed.example is not to be believed"},
	{"no signatures where the parent zone says that there are", "m.stripped.example", []string{"MINE"}, reason.DNSUnknown, "m.stripped.example is not to be believed"},
	{"a parent zone that vouches for another key", "m.parent.example", []string{"MINE"}, reason.DNSUnknown, "m.parent.example is not to be believed"},
	{"no record", "none.good.example", nil, reason.UnknownCA, "DNS has no TLSA record at _shared-alts.none.good.example"},
	{"no record that could vouch", "unusable.good.example", []string{"2 0 1 " + hex32, "3 2 1 " + hex32, "3 1 3 " + hex32, "3 1 2 " + hex32}, reason.UnknownCA,
		"none of the 4 TLSA records at _shared-alts.unusable.good.example can vouch for a machine"},
	{"records of other keys", "others.good.example", []string{"3 1 1 " + hex32, "3 0 1 " + hex32}, reason.UnknownCA,
		"none of the 2 TLSA records at _shared-alts.others.good.example is of the certificate"},
	{"too many records", "many.good.example", many(17), reason.DNSUnknown, "with what cannot be used (more than 16 records)"},
	{"a machine under none of the names of `--ca`", "m.elsewhere.example", []string{"MINE"}, reason.UnknownCA, "does not lead to a CA that is trusted here"},
}

// dnsFailures are what goes wrong on the machine that refuses.
var dnsFailures = []dnsRefusal{
	{"the resolver is down", "last.good.example", nil, reason.DNSUnknown, "DNS has not answered at _shared-alts.last.good.example"},
	{"the companion is down", "lost.good.example", nil, reason.DNSUnknown, "the companion shared-altsd-resolve is away"},
}

const hex32 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func many(n int) (records []string) {
	for i := range n {
		records = append(records, fmt.Sprintf("3 1 1 %02x%s", i, hex32[2:]))
	}
	return records
}

// What DNS does not vouch for is refused on both sides, whichever calls, and each reason is told apart.
func TestDNSRefusals(t *testing.T) {
	kinds := map[string]testdns.Kind{"good": testdns.Signed, "unsigned": testdns.Unsigned, "expired": testdns.Expired, "notyet": testdns.NotYet,
		"forged": testdns.Forged, "listed": testdns.ListedKey, "stripped": testdns.Stripped, "parent": testdns.OtherParent,
		"elsewhere": testdns.Signed}
	var zones []testdns.Zone
	for name, kind := range kinds {
		zones = append(zones, testdns.Zone{Name: name + ".example", Kind: kind})
	}
	dw := newDNSWorld(t, zones...)
	dw.zones = slices.DeleteFunc(dw.zones, func(z string) bool { return z == "elsewhere.example" })
	one := dw.machine("one.good.example", testca.Leaf{})
	dw.records["good.example"] = dw.tlsa(one.credentials(), "--ttl", "1h")
	machines := map[string]*daemon{}
	for _, r := range dnsRefusals {
		d := dw.machine(r.machine, testca.Leaf{})
		machines[r.machine] = d
		label, zone, _ := strings.Cut(r.machine, ".")
		for _, record := range r.records {
			if record == "MINE" {
				dw.records[zone] = append(dw.records[zone], dw.tlsa(d.credentials())...)
			} else {
				dw.records[zone] = append(dw.records[zone], "_shared-alts."+label+" IN TLSA "+record)
			}
		}
	}
	for name, kind := range kinds {
		dw.publish(name+".example", kind)
	}
	cases := 0
	refused := func(t *testing.T, d *daemon, code reason.Code, says string) {
		t.Helper()
		cases++
		server := dw.as(t, poolAccount(poolSize-cases)) // whose refusals are logged one by one
		addr := dw.as(t, bob).listen(t, d, 0)
		mark := d.mark()
		wantError(t, dw.call(one, d, addr), reasons[code].own, "this machine's daemon refused", says, "("+code.String()+")")
		wantError(t, dw.call(one, d, addr, byAltscreds), reasons[code].own, "this machine's daemon refused", says, "("+code.String()+")")
		if t.Failed() {
			return
		}
		d.find(t, mark, "a refusal by the client's daemon", func(l *record) bool { return l.ByPeer && l.Reason == code.String() && l.Role == "responder" })
		addr = server.listen(t, one, 0)
		mark = one.mark()
		r := dw.as(t, alice).do(t, order{Op: "call", Socket: d.socket, Addr: addr, Targets: []string{server.on(one)}})
		wantError(t, r, reasons[code].peers, "the peer's daemon refused: "+code.Meaning(), "("+code.String()+")")
		if t.Failed() {
			return
		}
		one.find(t, mark, "a refusal of the client, "+says, func(l *record) bool {
			return !l.ByPeer && l.Reason == code.String() && l.Role == "responder" && strings.Contains(l.Detail, says)
		})
	}
	for _, r := range dnsRefusals {
		t.Run(r.machine, func(t *testing.T) { refused(t, machines[r.machine], r.code, r.says) })
	}
	// What fails on this machine fails apart, and mends itself.
	last := dw.machine("last.good.example", testca.Leaf{})
	dw.publish("good.example", testdns.Signed, dw.tlsa(last.credentials())...)
	fails := func(t *testing.T, d *daemon, f dnsRefusal) {
		t.Helper()
		wantError(t, dw.call(one, d, dw.as(t, bob).listen(t, d, 0)), reasons[f.code].own, "this machine's daemon refused", f.says)
		cases++
		server := dw.as(t, poolAccount(poolSize-cases))
		c := dw.goodClaim(t)
		c.issue(dw.known, testca.Leaf{Hosts: []string{f.machine}, SelfSigned: true})
		c.Machine = f.machine
		mark := one.mark()
		if o := c.rogue().dial(server.listen(t, one, 0)); o.code != int(f.code) {
			t.Errorf("a client got %+v", o)
		}
		one.find(t, mark, "a refusal of a client, "+f.says, func(l *record) bool {
			return l.Reason == f.code.String() && l.Role == "responder" && strings.Contains(l.Detail, f.says)
		})
	}
	dw.StopResolver()
	t.Run("no resolver", func(t *testing.T) { fails(t, last, dnsFailures[0]) })
	dw.StartResolver(t)
	dw.companions[one].run.Kill()
	lost := dw.machine("lost.good.example", testca.Leaf{})
	dw.publish("good.example", testdns.Signed, dw.tlsa(lost.credentials())...)
	t.Run("no companion", func(t *testing.T) { fails(t, lost, dnsFailures[1]) })
	out := dw.shown("check", "--credentials", last.credentials(), "--ca", "good.example=dane", "--resolver-socket", dw.companions[one].socket)
	if !strings.Contains(out, "warning   DNS could not be asked: the companion shared-altsd-resolve is away") {
		t.Errorf("check says: %s", out)
	}
	dw.companions[one].start()
	addr := dw.as(t, bob).listen(t, lost, 0)
	wantWhom(t, dw.call(one, lost, addr), alice, bob, one, lost)
	out = dw.shown("check", "--credentials", machines["others.good.example"].credentials(), "--ca", "good.example=dane", "--resolver-socket", dw.companions[one].socket)
	if !strings.Contains(out, "fault     none of the 2 TLSA records") || !strings.Contains(out, "of another certificate or key") {
		t.Errorf("check says: %s", out)
	}
}

// A dnsStatus is what status says of trust by DNS.
type dnsStatus struct {
	Lookups []struct {
		Outcome string
		Count   int
	}
	Cached, Waiting, Known, Missed int
	InFlight                       int `json:"in_flight"`
}

func (dw *dnsWorld) dnsStatus(d *daemon) dnsStatus {
	dw.t.Helper()
	var s struct{ Dns dnsStatus }
	if err := json.Unmarshal([]byte(dw.shown("status", "--json", "--socket", d.socket)), &s); err != nil {
		dw.t.Fatal(err)
	}
	return s.Dns
}

// secured returns how many lookups of a daemon found records.
func (dw *dnsWorld) secured(d *daemon) (n int) {
	dw.t.Helper()
	for _, l := range dw.dnsStatus(d).Lookups {
		if l.Outcome == "secure" {
			n = l.Count
		}
	}
	return n
}

// asksAgain waits until a daemon has looked up anew.
func (dw *dnsWorld) asksAgain(d *daemon, times int) {
	dw.t.Helper()
	before := dw.secured(d)
	for end := time.Now().Add(testprog.Patience); dw.secured(d) < before+times; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			dw.t.Fatalf("%s does not look up anew", d.machine)
		}
	}
}

// A machine changes its key as docs/dns.md has it while others call it, and it others: no handshake is lost.
func TestDNSRollover(t *testing.T) {
	t.Parallel()
	dw := newDNSWorld(t, testdns.Zone{Name: "good.example"})
	one, two := dw.machine("one.good.example", testca.Leaf{}), dw.machine("two.good.example", testca.Leaf{})
	ofOne := dw.tlsa(one.credentials(), "--ttl", "1s")
	set := func(records ...string) {
		dw.Set(t, "good.example", testdns.Signed, append(slices.Clone(ofOne), records...)...)
	}
	set(dw.tlsa(two.credentials(), "--ttl", "1s")...)
	addrTwo, addrOne := dw.as(t, bob).listen(t, two, 0), dw.as(t, bob).listen(t, one, 0)
	var loads []order
	for i, o := range []order{
		{Socket: one.socket, Addr: addrTwo, Targets: []string{bob.on(two)}}, {Socket: two.socket, Addr: addrOne, Targets: []string{bob.on(one)}},
	} {
		for _, altscreds := range []bool{false, true} {
			o.Op, o.N, o.Altscreds, o.Key = "load", 2, altscreds, fmt.Sprint(t.Name(), i, altscreds)
			if r := dw.as(t, alice).do(t, o); r.Code != codes.OK {
				t.Fatal(r.Text)
			}
			loads = append(loads, o)
		}
	}
	dw.asksAgain(one, 1)
	next := testca.MustIssue(t, dw.known, testca.Leaf{Hosts: []string{two.machine}, SelfSigned: true, KeyType: testca.P384})
	file, err := dw.file("next.pem", next.PEM())
	if err != nil {
		t.Fatal(err)
	}
	set(dw.tlsa(two.credentials(), "--ttl", "1s", "--next", file)...)
	dw.asksAgain(one, 2) // the first may have begun before
	if err := os.Rename(file, two.credentials()); err != nil {
		t.Fatal(err)
	}
	if out := dw.shown("reload", "--socket", two.socket); !strings.Contains(out, "in force") {
		t.Fatalf("reload: %s", out)
	}
	want := fmt.Sprintf("serial %x", next.Cert.SerialNumber)
	if s := dw.status(two); !strings.Contains(s, want) {
		t.Fatalf("status has no %s: %s", want, s)
	}
	set(dw.tlsa(two.credentials(), "--ttl", "1s")...)
	dw.asksAgain(one, 2)
	for _, o := range loads {
		r := dw.as(t, alice).do(t, order{Op: "unload", Key: o.Key})
		if r.Code != codes.OK || r.Done == 0 {
			t.Errorf("%v: %d handshakes, %v: %s", o.Targets, r.Done, r.Code, r.Text)
		}
		t.Logf("to %s, altscreds %v: %d handshakes", o.Targets[0], o.Altscreds, r.Done)
	}
}

// Strangers who make up names, in a zone whose server never answers, take no lookup from another account, from the other direction,
// or from a machine that has been met.
func TestRule60Strangers(t *testing.T) {
	t.Parallel()
	dw := newDNSWorld(t, testdns.Zone{Name: "good.example"})
	held, _, err := dw.Listen("udp", "127.0.0.9:53")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	one, two, three := dw.machine("one.good.example", testca.Leaf{}), dw.machine("two.good.example", testca.Leaf{}), dw.machine("three.good.example", testca.Leaf{})
	records := []string{"lame 60 IN NS ns.lame", "ns.lame 60 IN A 127.0.0.9"}
	for _, d := range []*daemon{one, two, three} {
		records = append(records, dw.tlsa(d.credentials(), "--ttl", "1s")...)
	}
	dw.publish("good.example", testdns.Signed, records...)
	carol := poolAccount(60)
	ofBob, ofCarol, ofThree := dw.as(t, bob).listen(t, one, 0), dw.as(t, carol).listen(t, one, 0), dw.as(t, carol).listen(t, three, 0)
	wantWhom(t, dw.call(two, one, ofBob), alice, bob, two, one) // who has been met

	const strangers = 60 // stock grpc-go has no more than 100 handshakes under way in a process
	var names []string
	for i := range strangers {
		names = append(names, fmt.Sprintf("x%d.lame.good.example", i))
	}
	issued := testca.MustIssue(t, dw.known, testca.Leaf{Hosts: names, SelfSigned: true})
	var stop atomic.Bool
	var flood sync.WaitGroup
	defer flood.Wait()
	defer stop.Store(true)
	for _, name := range names {
		c := dw.goodClaim(t)
		c.use(issued)
		c.Machine = name
		flood.Go(func() {
			for !stop.Load() {
				c.rogue().dial(ofBob)
			}
		})
	}
	for end := time.Now().Add(testprog.Patience); dw.dnsStatus(one).Waiting < strangers/4; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the flood does not come: %+v", dw.dnsStatus(one))
		}
	}
	r := dw.as(t, alice).do(t, order{Op: "call", Socket: two.socket, Addr: ofCarol, Targets: []string{carol.on(one)}})
	wantWhom(t, r, alice, carol, two, one)
	toThree := order{Op: "call", Socket: one.socket, Addr: ofThree, Targets: []string{carol.on(three)}}
	wantWhom(t, dw.as(t, alice).do(t, toThree), alice, carol, one, three)
	met := dw.secured(one)
	for end := time.Now().Add(testprog.Patience); dw.secured(one) < met+2; time.Sleep(time.Second) {
		wantWhom(t, dw.call(two, one, ofBob), alice, bob, two, one) // and again, when what DNS said of it is over
		wantWhom(t, dw.as(t, alice).do(t, toThree), alice, carol, one, three)
		if time.Now().After(end) {
			t.Fatal("what DNS said is never over")
		}
	}
	if s := dw.dnsStatus(one); s.InFlight == 0 || s.InFlight > 64 || s.Waiting == 0 || s.Known != 2 || s.Missed > 1024 {
		t.Errorf("at the end: %+v", s)
	}
}

package e2e

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// An account of the test.
type account struct {
	name string
	uid  uint32
}

// on returns the account's identity on a machine.
func (a account) on(d *daemon) string { return a.name + "@" + d.machine }

// The accounts. The system has none of these uids; the daemons see them in the passwd file of the test.
var (
	alice    = account{"alice", 61001}
	bob      = account{"bob", 61002}
	nameless = account{"(none)", 61003}
	capital  = account{"Carol", 61004} // no carol
	twin     = account{"Dave", 61005}  // dave is somebody else
	lowered  = account{"Erin", 61006}  // erin is the same uid
	second   = account{"root", 61007}
	domain   = account{"frank@corp", 61008}
	tooLong  = account{strings.Repeat("g", 65), 61009}
	overflow = account{"nobody", 65534}
)

const firstOfPool, poolSize = 61100, 64

func passwd() string {
	var b strings.Builder
	line := func(name string, uid uint32) { fmt.Fprintf(&b, "%s:x:%d:%d::/:/usr/sbin/nologin\n", name, uid, uid) }
	line("root", 0)
	for _, a := range []account{alice, bob, capital, twin, lowered, second, domain, tooLong, overflow} {
		line(a.name, a.uid)
	}
	line("dave", 61015)
	line("erin", lowered.uid)
	for i := range poolSize {
		line(poolAccount(i).name, poolAccount(i).uid)
		like := domain.like(poolAccount(i))
		line(like.name, like.uid)
	}
	return b.String()
}

// like returns an account of the same kind for each of the pool's, since lines are limited for each: domain and nameless have
// such.
func (a account) like(p account) account {
	name := a.name
	if a == domain {
		name = p.name + "@corp"
	}
	return account{name, a.uid + 1000*(p.uid-firstOfPool+1)}
}

func poolAccount(i int) account { return account{fmt.Sprintf("user%d", i), uint32(firstOfPool + i)} }

// enterWorld replaces this process, which has a mount namespace of its own, by the program given, that sees the user
// database in the directory.
func enterWorld(args []string) error {
	dir, argv := args[0], args[1:]
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	for _, name := range []string{"passwd", "group", "nsswitch.conf"} {
		if err := unix.Mount(filepath.Join(dir, name), "/etc/"+name, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount over /etc/%s: %w", name, err)
		}
	}
	os.Unsetenv(roleVariable)
	return syscall.Exec(argv[0], argv, os.Environ())
}

// A world is what the tests share: CAs, daemons, and a pool of applications.
type world struct {
	dir     string
	program string // shared-altsd
	self    string // this test binary

	known, unknown, limited, inside, revoking, outdated *testca.CA
	revokedLeaf                                         *testca.Issued
	revokedCA                                           *testca.CA
	requiredEKU                                         asn1.ObjectIdentifier

	// alpha and beta are two ordinary machines. The others differ from them in one thing.
	alpha, beta *daemon
	demanding   *daemon // --require-eku
	hasty       *daemon // --handshake-timeout 1s
	narrow      *daemon // --max-handshakes 2, --server-accounts same, and a second socket for some uids only
	costly      *daemon // as alpha, with nothing else to do, so that its processor time can be measured
	stranger    *daemon // of a CA that the others do not know
	revoked     *daemon // its certificate is revoked, which it does not know
	stale       *daemon // its CA's revocation list is out of date, which it does not know
	expired     *daemon // its certificate has expired
	early       *daemon // its certificate is not yet valid
	broken      *daemon // its user database fails
	tight       *daemon // --max-streams 1
	domains     *daemon // --allow-domain-accounts
	guarded     *daemon // --policy and --denied

	mu        sync.Mutex
	processes map[uint32]*process
	daemons   []*daemon
	secrets   []secret

	used map[string]int // refusals by daemon and reason, see pool
	keys int            // streams that were given a name
}

// narrowUIDs are the uids that narrow's second socket serves.
const narrowUIDs = "61101-61102"

func (w *world) narrowSocket() string { return filepath.Join(w.dir, "narrow-limited.socket") }

// takenSocket, of narrow, gives out an account that alice has.
func (w *world) takenSocket() string { return filepath.Join(w.dir, "narrow-taken.socket") }

func newWorld() (_ *world, err error) {
	w := &world{processes: map[uint32]*process{}, used: map[string]int{}}
	if w.program, err = testprog.Path(); err != nil {
		return nil, err
	}
	if w.dir, err = os.MkdirTemp("/tmp", "altsd-e2e-"); err != nil {
		return nil, err
	}
	w.self = filepath.Join(w.dir, "app")
	return w, w.make()
}

func (w *world) make() error {
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return err
	}
	if err := testprog.CopySelf(w.self); err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		"passwd": []byte(passwd()), "group": []byte("root:x:0:\n"),
		"nsswitch.conf": []byte("passwd: files\ngroup: files\n"),
	} {
		if err := os.WriteFile(filepath.Join(w.dir, name), data, 0o755); err != nil {
			return err
		}
	}
	if err := w.makeCAs(); err != nil {
		return err
	}
	return w.startDaemons()
}

// file writes a file of the world and gives its path.
func (w *world) file(name string, data []byte) (string, error) {
	path := filepath.Join(w.dir, name)
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return "", err
	}
	return path, os.Rename(path+".new", path)
}

func (w *world) makeCAs() (err error) {
	w.requiredEKU = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1, 1}
	makeCA := func(ca **testca.CA, o testca.Options) {
		if err == nil {
			*ca, err = testca.NewCA(o)
		}
	}
	makeCA(&w.known, testca.Options{Name: "known"})
	makeCA(&w.unknown, testca.Options{Name: "unknown"})
	makeCA(&w.limited, testca.Options{Name: "limited"})
	makeCA(&w.inside, testca.Options{Name: "inside", PermittedDNS: []string{"inside.test"},
		ExcludedDNS: []string{"secret.inside.test"}})
	makeCA(&w.revoking, testca.Options{Name: "revoking"})
	makeCA(&w.outdated, testca.Options{Name: "outdated"})
	if err != nil {
		return err
	}
	if w.revokedLeaf, err = w.revoking.Issue(testca.Leaf{Hosts: []string{"revoked.test"}}); err != nil {
		return err
	}
	if w.revokedCA, err = w.revoking.Intermediate(testca.Options{Name: "revoked CA"}); err != nil {
		return err
	}
	crl, err := w.revoking.CRL([]*big.Int{w.revokedLeaf.Cert.SerialNumber, w.revokedCA.Cert.SerialNumber},
		testca.CRLOptions{})
	if err != nil {
		return err
	}
	old, err := w.outdated.CRL(nil, testca.CRLOptions{ThisUpdate: time.Now().Add(-48 * time.Hour),
		NextUpdate: time.Now().Add(-time.Hour)})
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{
		"known.pem": w.known.PEM(), "limited.pem": w.limited.PEM(), "inside.pem": w.inside.PEM(),
		"revoking.pem": w.revoking.PEM(), "outdated.pem": w.outdated.PEM(), "revoking.crl": crl, "outdated.crl": old,
	} {
		if _, err := w.file(name, data); err != nil {
			return err
		}
	}
	return nil
}

// trust returns the flags of a machine that trusts all but the unknown CA.
func (w *world) trust() []string {
	f := func(name string) string { return filepath.Join(w.dir, name) }
	return []string{"--ca", f("known.pem"), "--ca", "limited.test,hpc.limited.test=" + f("limited.pem"), "--ca",
		f("inside.pem"),
		"--ca", f("revoking.pem"), "--ca", f("outdated.pem"), "--crl", f("revoking.crl"), "--crl", f("outdated.crl")}
}

// machine makes a daemon for a machine of that name, with a certificate for it and 127.0.0.1, and does not start it.
func (w *world) machine(name string, ca *testca.CA, leaf testca.Leaf, flags ...string) (*daemon, error) {
	leaf.Hosts, leaf.IPs = []string{name + ".test"}, []net.IP{net.IPv4(127, 0, 0, 1)}
	issued, err := ca.Issue(leaf)
	if err != nil {
		return nil, err
	}
	return w.machineWith(name, issued, flags...)
}

func (w *world) machineWith(name string, issued *testca.Issued, flags ...string) (*daemon, error) {
	return w.machineNamed(name, name+".test", issued, flags...)
}

// machineNamed is machineWith for a machine of any name.
func (w *world) machineNamed(name, machine string, issued *testca.Issued, flags ...string) (*daemon, error) {
	w.keepSecret("the private key of "+name, issued.KeyPEM)
	credentials, err := w.file(name+".pem", issued.PEM())
	if err != nil {
		return nil, err
	}
	d := &daemon{world: w, etc: w.dir, machine: machine, socket: filepath.Join(w.dir, name+".socket"), program: w.program}
	d.args = append([]string{"serve", "--socket", d.socket, "--credentials", credentials,
		"--log-level", "debug", "--log-format", "json"}, flags...)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.daemons = append(w.daemons, d)
	return d, nil
}

func (w *world) startDaemons() (err error) {
	long, known := w.trust(), []string{"--ca", filepath.Join(w.dir, "known.pem")}
	add := func(d **daemon, name string, ca *testca.CA, leaf testca.Leaf, flags ...string) {
		if err == nil {
			*d, err = w.machine(name, ca, leaf, flags...)
		}
	}
	with := func(base []string, more ...string) []string { return slices.Concat(base, more) }
	// Hundreds of handshakes at once may wait for long on a machine that is busy with other things.
	patient := with(long, "--handshake-timeout", "5m")
	add(&w.alpha, "alpha", w.known, testca.Leaf{}, patient...)
	add(&w.beta, "beta", w.known, testca.Leaf{}, patient...)
	add(&w.demanding, "demanding", w.known, testca.Leaf{KeyType: testca.RSA2048,
		UnknownEKUs: []asn1.ObjectIdentifier{w.requiredEKU}, EKUs: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		with(long, "--require-eku", w.requiredEKU.String())...)
	add(&w.hasty, "hasty", w.known, testca.Leaf{KeyType: testca.Ed25519}, with(known, "--handshake-timeout", "1s",
		"--max-handshakes", "2")...)
	add(&w.narrow, "narrow", w.known, testca.Leaf{KeyType: testca.P384}, with(known, "--max-handshakes", "2",
		"--server-accounts", "same",
		"--secure-naming", "off", "--socket", w.narrowSocket()+",uids="+narrowUIDs,
		"--socket", w.takenSocket()+",uids="+narrowUIDs+",account="+alice.name)...)
	add(&w.costly, "costly", w.known, testca.Leaf{}, long...)
	add(&w.stranger, "stranger", w.unknown, testca.Leaf{}, known...)
	add(&w.stale, "stale", w.outdated, testca.Leaf{}, known...)
	add(&w.expired, "expired", w.known, testca.Leaf{NotBefore: time.Now().Add(-48 * time.Hour),
		NotAfter: time.Now().Add(-time.Hour)}, known...)
	add(&w.early, "early", w.known, testca.Leaf{NotBefore: time.Now().Add(24 * time.Hour)}, known...)
	add(&w.broken, "broken", w.known, testca.Leaf{}, known...)
	add(&w.tight, "tight", w.known, testca.Leaf{}, with(known, "--max-streams", "1")...)
	if err == nil {
		w.broken.etc, err = w.failingUsers()
	}
	add(&w.domains, "domains", w.known, testca.Leaf{}, with(known, "--allow-domain-accounts")...)
	if err == nil {
		var flags []string
		flags, err = w.rules("guarded", "default in allow\ndefault out allow\ndeny any * mallory@eve.test\n",
			"deny any * *@banned.test # by root: INC-4711\n")
		add(&w.guarded, "guarded", w.known, testca.Leaf{}, with(known, flags...)...)
	}
	if err != nil {
		return err
	}
	if w.revoked, err = w.machineWith("revoked", w.revokedLeaf, known...); err != nil {
		return err
	}
	errs := make([]error, len(w.daemons))
	var wg sync.WaitGroup
	for i, d := range w.daemons {
		wg.Go(func() { errs[i] = d.start() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// rules makes the directories of a machine's rules and of what is denied there, and gives the flags for them.
func (w *world) rules(name, rules, denied string) (flags []string, err error) {
	dir := filepath.Join(w.dir, name+"-rules")
	for file, text := range map[string]string{"policy.d/10-site.policy": rules, "denied.policy": denied} {
		path := filepath.Join(dir, file)
		err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644))
	}
	return []string{"--policy", filepath.Join(dir, "policy.d"), "--denied", dir}, err
}

// failingUsers makes a user database of which /etc/passwd cannot be read, whoever tries.
func (w *world) failingUsers() (string, error) {
	dir := filepath.Join(w.dir, "failing")
	err := os.Mkdir(dir, 0o755)
	for name, target := range map[string]string{"passwd": "/proc/self/mem", "group": "../group",
		"nsswitch.conf": "../nsswitch.conf"} {
		err = errors.Join(err, os.Symlink(target, filepath.Join(dir, name)))
	}
	return dir, err
}

// as returns the application of an account.
func (w *world) as(t testing.TB, a account) *process {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.processes[a.uid]
	if p == nil {
		var err error
		if p, err = w.run(a); err != nil {
			t.Fatal(err)
		}
		w.processes[a.uid] = p
	}
	return p
}

// end stops everything and gives what was wrong with it.
func (w *world) end() error {
	var errs []error
	var wg sync.WaitGroup
	for _, p := range w.processes {
		wg.Go(p.end)
	}
	wg.Wait()
	ends := make([]error, len(w.daemons))
	for i, d := range w.daemons {
		wg.Go(func() { ends[i] = d.end() })
	}
	wg.Wait()
	errs = append(errs, ends...)
	return errors.Join(append(errs, os.RemoveAll(w.dir))...)
}

// key returns a name for a stream that an application keeps, a new one each time.
func (w *world) key(t testing.TB) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.keys++
	return fmt.Sprint(t.Name(), " ", w.keys)
}

// A secret is what no log may hold.
type secret struct {
	what  string
	forms []string // in which it could stand in a log
}

// keepSecret notes bytes, or PEM, that must not be in any log.
func (w *world) keepSecret(what string, data []byte) {
	s := secret{what: what}
	if b, _ := pem.Decode(data); b != nil {
		for line := range strings.Lines(string(data)) {
			if line = strings.TrimSpace(line); len(line) >= 16 && !strings.HasPrefix(line, "-----") {
				s.forms = append(s.forms, line)
			}
		}
		data = b.Bytes
	}
	// Any 16 bytes of it would be too much; a form that begins in the middle is found by its aligned parts.
	for at := 0; at+16 <= len(data); at += 16 {
		part := data[at : at+16]
		s.forms = append(s.forms, string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
			strings.Trim(fmt.Sprint(part), "[]"), strings.Trim(fmt.Sprintf("% x", part), "[]"))
	}
	for at := 0; at+18 <= len(data); at += 18 { // base64 has no remainder after 3 bytes
		s.forms = append(s.forms, base64.StdEncoding.EncodeToString(data[at:at+18]),
			base64.URLEncoding.EncodeToString(data[at:at+18]))
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secrets = append(w.secrets, s)
}

// leaks looks for the secrets in a text.
func (w *world) leaks(text string) (found []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.secrets {
		if slices.ContainsFunc(s.forms, func(form string) bool { return strings.Contains(text, form) }) {
			found = append(found, s.what)
		}
	}
	return found
}

// A record is a line of a daemon's log.
type record struct {
	Level, Msg, ID, Role, Local, Peer, Reason, Detail string
	Socket, Rule, Would, Entry, By, Changed           string
	UID                                               uint32
	Suppressed                                        int
	ByPeer                                            bool `json:"by_peer"`
}

// A daemon is shared-altsd serve for one machine.
type daemon struct {
	world   *world
	machine string
	socket  string
	program string
	args    []string
	etc     string // where its user database is
	run     *testprog.Process
	earlier string // the log of what ran before it
	killed  bool   // by a test, so that its exit status says nothing
	alone   bool   // it has a network namespace with nothing in it, as the unit's PrivateNetwork=yes makes one
}

// start returns when the daemon says that it is ready.
func (d *daemon) start() (err error) {
	d.earlier, d.killed = d.said(), false
	// With a mount namespace of its own, the test binary turns into the daemon, which keeps its process ID.
	cmd := exec.Command(d.world.self, append([]string{d.etc, d.program}, d.args...)...)
	cmd.Env = append(os.Environ(), roleVariable+"=daemon", "LISTEN_FDS=", "WATCHDOG_USEC=")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if d.alone {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWNET
	}
	if d.run, err = testprog.Start(cmd); err != nil {
		return fmt.Errorf("the daemon of %s, in a mount namespace of its own: %w", d.machine, err)
	}
	return nil
}

func (d *daemon) signal(t testing.TB, s os.Signal) {
	t.Helper()
	if err := d.run.Cmd.Process.Signal(s); err != nil {
		t.Fatal(err)
	}
}

// end stops the daemon, if it runs, and gives what it has done wrong in its life.
func (d *daemon) end() error {
	if d.run == nil {
		return nil
	}
	if err := d.run.Stop(); err != nil && !d.killed {
		return fmt.Errorf("the daemon of %s: %w", d.machine, err)
	}
	return d.faults()
}

// faults looks for what no log may hold.
func (d *daemon) faults() error {
	log := d.said()
	if err := testprog.Faults(log); err != nil {
		return fmt.Errorf("the daemon of %s: %w", d.machine, err)
	}
	if found := d.world.leaks(log); found != nil {
		return fmt.Errorf("the log of the daemon of %s holds %s", d.machine, strings.Join(found, " and "))
	}
	return nil
}

func (d *daemon) said() string {
	if d.run == nil {
		return ""
	}
	return d.earlier + d.run.Log.String() + "\n"
}

// mark returns a place in the log, for find.
func (d *daemon) mark() int { return d.run.Log.Count() }

// find waits for a line of the log after mark.
func (d *daemon) find(t testing.TB, mark int, what string, match func(*record) bool) *record {
	t.Helper()
	var r *record
	if _, err := d.run.Log.Wait(mark, what, func(line string) bool {
		r = new(record)
		return json.Unmarshal([]byte(line), r) == nil && match(r)
	}); err != nil {
		t.Errorf("%s: %v", d.machine, err)
		return nil
	}
	return r
}

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// greeter is whom a socket makes of its callers.
var greeter = account{name: "greeter+"}

// users makes a user database that a test may change.
func (w *world) users(t *testing.T, name, nsswitch string) (etc string) {
	t.Helper()
	etc = filepath.Join(w.dir, name)
	if err := os.Mkdir(etc, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"passwd": passwd(), "group": "root:x:0:\n", "nsswitch.conf": nsswitch} {
		if err := os.WriteFile(filepath.Join(etc, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return etc
}

// box is a machine with a socket that is greeter+ to accounts with names and to those without.
func (w *world) box(t *testing.T, name, program, nsswitch string) (d *daemon, socket string) {
	t.Helper()
	socket = filepath.Join(w.dir, name+"-box.socket")
	d, err := w.machine(name, w.known, testca.Leaf{}, "--ca", filepath.Join(w.dir, "known.pem"), "--server-accounts", "same",
		"--socket", fmt.Sprintf("%s,uids=%d-%d+%d,account=Greeter+,label=blue", socket, alice.uid, nameless.uid, poolAccount(0).uid))
	if err != nil {
		t.Fatal(err)
	}
	d.program, d.etc = program, w.users(t, name, nsswitch)
	if err := d.start(); err != nil {
		t.Fatal(err)
	}
	return d, socket
}

// builds are the program with the C library and without.
func builds(t *testing.T) map[string]string {
	t.Helper()
	c, err := testprog.Path()
	if err != nil {
		t.Fatal(err)
	}
	static, err := testprog.Static()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]string{"cgo": c, "static": static}
}

// All uids of a socket are one account there, with names of their own or without, as clients and as servers, to stock
// grpc-go; until somebody gets that name.
func TestRule50TwoUIDsOneAccount(t *testing.T) {
	w := theWorld(t)
	addr := w.as(t, bob).listen(t, w.beta, 0)
	for name, program := range builds(t) {
		t.Run(name, func(t *testing.T) {
			d, socket := w.box(t, "box-"+name, program, "passwd: files\ngroup: files\n")
			call := order{Op: "call", Socket: socket, Addr: addr, Targets: []string{"bob@beta.test"}}
			for _, a := range []account{alice, nameless} {
				mark := d.mark()
				r := w.as(t, a).do(t, call)
				if r.Code != codes.OK || r.Seen.Account != greeter.on(d) || r.Peer.Local != greeter.on(d) {
					t.Errorf("uid %d: %v %s, is seen as %+v", a.uid, r.Code, r.Text, r.Seen)
				}
				d.find(t, mark, "the socket and the real uid", func(l *record) bool {
					return l.Local == greeter.on(d) && l.UID == a.uid && l.Socket == "blue" && l.Reason == "accepted"
				})
			}
			call.Altscreds = true
			if r := w.as(t, alice).do(t, call); r.Code != codes.OK || r.Seen.Account != greeter.on(d) {
				t.Errorf("altscreds: %v %s, is seen as %+v", r.Code, r.Text, r.Seen)
			}
			// As a server, of one uid, it is what the other uid's "same" account is.
			at := w.as(t, nameless).do(t, order{Op: "listen", Socket: socket})
			r := w.as(t, alice).do(t, order{Op: "call", Socket: socket, Addr: at.Addr})
			if r.Code != codes.OK || r.Peer.Account != greeter.on(d) || r.Seen.Account != greeter.on(d) {
				t.Errorf("with itself: %v %s %+v", r.Code, r.Text, r)
			}
			call.Altscreds = false
			r = w.as(t, bob).do(t, order{Op: "call", Socket: w.beta.socket, Addr: at.Addr, Targets: []string{greeter.on(d)}})
			if r.Code != codes.OK || r.Peer.Account != greeter.on(d) {
				t.Errorf("as a server: %v %s %+v", r.Code, r.Text, r)
			}
			// By the main socket alice is herself.
			r = w.as(t, alice).do(t, order{Op: "call", Socket: d.socket, Addr: addr, Targets: []string{"bob@beta.test"}})
			wantWhom(t, r, alice, bob, d, w.beta)

			f, err := os.OpenFile(filepath.Join(d.etc, "passwd"), os.O_APPEND|os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteString("Greeter+:x:61900:61900::/:/usr/sbin/nologin\n")
				f.Close()
			}
			if err != nil {
				t.Fatal(err)
			}
			for end := time.Now().Add(testprog.Patience); time.Now().Before(end); { // the file is looked at once a second
				if r = w.as(t, alice).do(t, call); r.Code != codes.OK {
					break
				}
				time.Sleep(50 * time.Millisecond)
			}
			wantError(t, r, codes.PermissionDenied, "this machine's daemon refused", `has an account "Greeter+" by now`, "(local_account)")
		})
	}
}

// hangs is an NSS module that knows nobody, and does not say so.
const hangs = `#include <nss.h>
#include <pwd.h>
#include <unistd.h>
enum nss_status _nss_altsdhang_getpwnam_r(const char *n, struct passwd *p, char *b, size_t l, int *e) { for (;;) pause(); }
`

// A user database that hangs, by either build, refuses the socket's callers, and nobody else's.
func TestRule50DatabaseHangs(t *testing.T) {
	w := theWorld(t)
	addr := w.as(t, bob).listen(t, w.beta, 0)
	lib := testprog.Dir(t)
	source := testprog.Write(t, filepath.Join(lib, "hang.c"), []byte(hangs))
	if out, err := exec.Command("gcc", "-shared", "-fPIC", "-o", filepath.Join(lib, "libnss_altsdhang.so.2"), source).CombinedOutput(); err != nil {
		t.Skipf("no C compiler for a user database that hangs: %v %s", err, out)
	}
	testprog.Write(t, filepath.Join(lib, "getent"), []byte("#!/bin/sh\n[ \"$2\" = greeter+ ] && exec sleep 1000\nexec /usr/bin/getent \"$@\"\n"))
	if err := os.Chmod(filepath.Join(lib, "getent"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LD_LIBRARY_PATH", lib)
	t.Setenv("PATH", lib+":"+os.Getenv("PATH"))
	for name, program := range builds(t) {
		d, socket := w.box(t, "hang-"+name, program, "passwd: files altsdhang\ngroup: files\n")
		call := order{Op: "call", Socket: socket, Addr: addr, Targets: []string{"bob@beta.test"}}
		stuck := w.as(t, nameless).begin(t, call)
		call.Socket = d.socket
		wantWhom(t, w.as(t, alice).do(t, call), alice, bob, d, w.beta)
		r := w.as(t, nameless).wait(t, stuck)
		wantError(t, r, codes.Internal, "this machine's daemon refused", "did not say whether there is an account", "within 5s", "(internal)")
	}
}

//go:build deploy

package deploytest

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// userManager runs daemon, listen and a real `systemd --user` of the account "daemon" in namespaces of their own, until its
// standard input ends. The manager only wants to see that systemd runs, and a control group in which it may make others.
const userManager = `
mount --make-rprivate /
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/system
groups=
for h in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
	if [ -e $h/cgroup.procs ] && mkdir $h/altsd-test-$PORT; then
		groups="$groups $h/altsd-test-$PORT"
		chown -R 1 $h/altsd-test-$PORT
		echo $$ >$h/altsd-test-$PORT/cgroup.procs
	fi
done
exec 3<&0 </dev/null
cd $DIR
$PROGRAM serve --socket $DIR/altsd --credentials ca/a.example.com.pem --ca ca/ca.pem & serve=$!
while [ ! -S $DIR/altsd ]; do sleep 0.05; done
$PROGRAM listen --socket $DIR/altsd --listen 127.0.0.1:$PORT --allow daemon@a.example.com -- cat & listen=$!
export HOME=$DIR/home XDG_RUNTIME_DIR=$DIR/run
as="setpriv --reuid 1 --regid 1 --clear-groups"
for s in /usr/lib/systemd/systemd /lib/systemd/systemd; do [ ! -x $s ] || manager=$s; done
$as $manager --user --log-target=console --unit=basic.target & user=$!
while [ ! -S $XDG_RUNTIME_DIR/systemd/private ]; do sleep 0.05; done
$as $ENABLE
$as systemctl --user enable --now shared-altsd-connect@pg.socket
echo ready >&4
while read -r line <&3; do
	$as systemctl --user $line >&4 2>&1
	echo done >&4
done
kill $user $listen; wait $user $listen; kill $serve; wait
`

// The units of an account under a real manager: sockets that only it can enter, connections under its name, and a service that
// can be restarted.
func TestUserManager(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make namespaces and run a manager as another account")
	}
	dir, err := os.MkdirTemp("/tmp", "altsd-user-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, err := filepath.Abs(filepath.Join(root, "dist/root/shared-altsd"))
	if err != nil {
		t.Fatal(err)
	}
	must(t, program, "dev-ca", filepath.Join(dir, "ca"), "a.example.com")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	put := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const units = "home/.config/systemd/user/"
	for _, kind := range []string{"socket", "service"} {
		b, err := os.ReadFile(filepath.Join(root, "deploy/systemd-user/shared-altsd-connect@."+kind))
		if err != nil {
			t.Fatal(err)
		}
		put(units+"shared-altsd-connect@."+kind, strings.ReplaceAll(string(b), "/usr/bin/shared-altsd", program))
	}
	// As docs/forwards.md has it: a config file and a command, and for psql a drop-in.
	printed := testdoc.Blocks(t, "docs/forwards.md", t.Name())
	config, enable, found := strings.Cut(printed[0], "\n\n")
	if !found || len(printed) != 2 || !strings.Contains(config, "peer = postgres@beta.example.com:6432") {
		t.Fatalf("docs/forwards.md has %q", printed)
	}
	enable = strings.Replace(strings.TrimSpace(enable), "@postgres.socket", "@app.socket", 1)
	put(units+"shared-altsd-connect@pg.socket.d/override.conf", strings.Replace(printed[1], "/postgres/", "/pg/", 1))
	for _, name := range []string{"app", "pg"} {
		put("home/.config/shared-altsd/connect/"+name+".conf", strings.Replace(config, "postgres@beta.example.com:6432", "root@a.example.com:"+port, 1)+
			"\ndial = 127.0.0.1:"+port+"\nsocket = "+dir+"/altsd\n")
	}
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	must(t, "chown", "-R", "1:1", filepath.Join(dir, "home"), filepath.Join(dir, "run"))
	must(t, "chmod", "755", dir)

	cmd := exec.Command("unshare", "-m", "-p", "-f", "--mount-proc", "--kill-child", "bash", "-c", userManager)
	cmd.Env = append(os.Environ(), "DIR="+dir, "PROGRAM="+program, "PORT="+port, "ENABLE="+enable)
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	answers, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	devNull, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer devNull.Close()
	cmd.ExtraFiles = []*os.File{devNull, w} // 4 is where the script answers
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	t.Cleanup(func() {
		in.Close()
		kill := time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		kill.Stop()
		// Deepest first, now that nothing runs in them.
		exec.Command("find", "/sys/fs/cgroup", "-depth", "-type", "d", "-path", "*/altsd-test-"+port+"*", "-exec", "rmdir", "{}", ";").Run()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	answer := func(until string) string {
		t.Helper()
		answers.SetReadDeadline(time.Now().Add(time.Minute))
		var all strings.Builder
		for b := make([]byte, 1); !strings.HasSuffix("\n"+all.String(), "\n"+until+"\n"); {
			if _, err := answers.Read(b); err != nil {
				t.Fatalf("the script says %q, and then: %v", all.String(), err)
			}
			all.Write(b)
		}
		return strings.TrimSuffix(all.String(), until+"\n")
	}
	answer("ready")
	sockets := []string{filepath.Join(dir, "run/shared-altsd/app.socket"), filepath.Join(dir, "run/shared-altsd/pg/.s.PGSQL.5432")}
	for _, path := range sockets {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		if info, err := os.Stat(filepath.Dir(path)); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%v, %v", info, err)
		}
		if got, err := through(path, 1, "hello"); got != "hello" || err != nil {
			t.Errorf("%s: %q, %v", path, got, err)
		}
		// Root comes near, and is not the account.
		if got, _ := through(path, 0, "hello"); got != "" {
			t.Errorf("%s: root is served %q", path, got)
		}
	}
	ask := func(args string) string {
		t.Helper()
		fmt.Fprintln(in, args)
		return answer("done")
	}
	if status := ask("show -P StatusText shared-altsd-connect@pg.service"); !strings.Contains(status, "root@a.example.com:"+port) {
		t.Errorf("the status is %q", status)
	}
	if said := ask("stop shared-altsd-connect@pg.service"); strings.Contains(said, "ailed") {
		t.Error(said)
	}
	if state := ask("is-active shared-altsd-connect@pg.service"); state != "inactive\n" {
		t.Errorf("after the stop it is %q", state)
	}
	if got, err := through(sockets[1], 1, "again"); got != "again" || err != nil {
		t.Errorf("after the stop: %q, %v", got, err)
	}
}

// through sends text by the socket as an account, and returns what comes back.
func through(path string, uid uintptr, text string) (got string, err error) {
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, uid, uid, uid); errno != 0 {
			err = errno
			return
		}
		var c net.Conn
		if c, err = net.Dial("unix", path); err != nil {
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		io.WriteString(c, text)
		c.(*net.UnixConn).CloseWrite()
		var b []byte
		b, err = io.ReadAll(c)
		got = string(b)
	})
	wg.Wait()
	return got, err
}

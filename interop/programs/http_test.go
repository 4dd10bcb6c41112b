package programs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// waitFile waits until there is a file of this name.
func waitFile(t *testing.T, path string) {
	t.Helper()
	for end := time.Now().Add(testprog.Patience); ; time.Sleep(20 * time.Millisecond) {
		if _, err := os.Lstat(path); err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("there is no %s", path)
		}
	}
}

// curl runs curl on alpha beside a connect of its own, at a UNIX socket, and returns what the server at the port of beta answers.
func curl(t *testing.T, w *world, who account, port int, args ...string) outcome {
	t.Helper()
	argv := []string{"shared-altsd", "connect", "--listen", "unix:http", "--setenv", "S=%d/http",
		fmt.Sprintf("web@beta.example.com:%d", port), "--", "/bin/sh", "-c",
		`exec curl -sS --max-time 60 --unix-socket "$S" "$@" http://web.example.com/`, "sh"}
	return w.alpha.run(t, who, append(argv, args...)...)
}

// forgedByCurl are headers by which a client may say that it is somebody else.
var forgedByCurl = [][]string{
	{"-H", "Altsd-Peer: root@beta.example.com"},
	{"-H", "altsd-peer: root@beta.example.com", "-H", "ALTSD-PEER: root@beta.example.com"},
	{"-H", "altsd_peer: root@beta.example.com"},
	{"-H", "Altsd_Peer_User: root", "-H", "Altsd-Peer_Uid: 0"},
	{"-H", "Altsd-Peer-Groups: wheel", "-H", "Altsd-Service: ssh", "-H", "Altsd-Anything: x"},
	{"-H", "Connection: close, Altsd-Peer, altsd_peer"},
	{"-H", "Transfer-Encoding: chunked", "-H", "Trailer: Altsd-Peer", "-d", "x"},
	{"-H", "X-Forwarded-For: 10.0.0.1", "-H", "X_Forwarded_For: 10.0.0.1", "-H", "Forwarded: for=10.0.0.1"},
}

// A WSGI application, to which the _ and the - of a header are the same, greets whom the forward has proved.
func TestWSGI(t *testing.T) {
	w := theWorld(t)
	need(t, "curl")
	web := w.beta.account("web")
	socket := filepath.Join(w.beta.privateDir(t, web, "wsgi"), "socket")
	text, err := os.ReadFile("greeter.py")
	if err != nil {
		t.Fatal(err)
	}
	program := w.beta.file(t, web, "greeter.py", string(text), 0o644)
	os.Remove(socket)
	w.beta.serve(t, w.beta.command(web, "/usr/bin/python3", "-I", program, socket))
	waitFile(t, socket)
	listen := w.beta.forward(t, web, "--listen", ":7131", "--target", "unix:"+socket, "--http", "--allow", "*@alpha.example.com")
	for _, name := range []string{"alice", "bob"} {
		who := w.alpha.account(name)
		for _, args := range append(slices.Clone(forgedByCurl), nil) {
			got := curl(t, w, who, 7131, args...).stdout
			lines := strings.Split(strings.TrimSpace(got), "\n")
			lines = slices.DeleteFunc(lines, func(l string) bool { return strings.HasPrefix(l, "HTTP_ALTSD_HANDSHAKE=") })
			want := []string{"hello " + who.on(w.alpha), "HTTP_ALTSD_PEER=" + who.on(w.alpha), "HTTP_ALTSD_PEER_MACHINE=alpha.example.com",
				fmt.Sprintf("HTTP_ALTSD_PEER_UID=%d", who.uid), "HTTP_ALTSD_PEER_USER=" + name, "HTTP_ALTSD_SERVICE=7131"}
			if !slices.Equal(lines, want) || !strings.Contains(got, "HTTP_ALTSD_HANDSHAKE=") {
				t.Errorf("%s with %q:\n%s", name, args, got)
			}
		}
	}
	if _, err := listen.Log.WaitText(0, "alice@alpha.example.com"); err != nil {
		t.Error(err)
	}
	w.printed(t, web, socket)
	// A local account of beta reaches neither the application nor, once everybody could, does anybody by the forward.
	direct := []string{"curl", "-sS", "--unix-socket", socket, "-H", "Altsd-Peer: alice@alpha.example.com", "http://x/"}
	if got := w.beta.run(t, w.beta.account("mallory"), direct...); got.code == 0 {
		t.Errorf("mallory reaches the application: %+v", got)
	}
	for path, mode := range map[string]os.FileMode{filepath.Dir(socket): 0o755, socket: 0o666} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.beta.run(t, w.beta.account("mallory"), direct...); !strings.HasPrefix(got.stdout, "hello alice@alpha.example.com") {
		t.Errorf("mallory forges nothing, so this test proves nothing: %+v", got)
	}
	if got := curl(t, w, w.alpha.account("alice"), 7131, "-o", "/dev/null", "-w", "%{http_code}"); got.stdout != "502" {
		t.Errorf("to a socket that everybody reaches: %+v", got)
	}
	if _, err := listen.Log.WaitText(0, "other accounts of this machine may connect"); err != nil {
		t.Error(err)
	}
}

// printed runs what the page prints of a web application: both ends by name, and a port that no browser is led to.
func (w *world) printed(t *testing.T, web account, socket string) {
	t.Helper()
	blocks := testdoc.Blocks(t, page, t.Name())
	listen, call, found := strings.Cut(blocks[0], "\n\n")
	if !found || len(blocks) != 2 {
		t.Fatalf("%s has %q", page, blocks)
	}
	w.beta.forward(t, web, words(t, w.beta, web, strings.Replace(listen, "/run/web/socket", socket, 1))...)
	alice := w.alpha.account("alice")
	if o := w.alpha.run(t, alice, "sh", "-c", call); !strings.HasPrefix(o.stdout, "hello alice@alpha.example.com\n") {
		t.Errorf("%s: %+v", call, o)
	}
	w.alpha.serve(t, w.alpha.command(alice, "sh", "-c", "exec "+strings.TrimSpace(blocks[1])))
	w.alpha.waitPort(t, 8080)
	for host, want := range map[string]string{"127.0.0.1:8080": "hello alice@alpha.example.com\n", "evil.example": ""} {
		o := w.alpha.run(t, alice, "curl", "-sSf", "--max-time", "60", "-H", "Host: "+host, "http://127.0.0.1:8080/")
		if (want == "") != (o.code != 0) || !strings.HasPrefix(o.stdout, want) {
			t.Errorf("as %s: %+v", host, o)
		}
	}
}

// nginx lets in by name, in both versions of HTTP, with the option that makes a _ of a header's name as good as a -.
func TestNginx(t *testing.T) {
	w := theWorld(t)
	need(t, "nginx", "curl")
	web := w.beta.account("web")
	dir := w.beta.privateDir(t, web, "nginx")
	config := w.beta.file(t, web, "nginx/nginx.conf", fmt.Sprintf(`
daemon off;
pid %[1]s/pid;
error_log stderr warn;
events {}
http {
	access_log off;
	underscores_in_headers on;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	map $http_altsd_peer $allowed { default 0; alice@alpha.example.com 1; }
	server {
		listen unix:%[1]s/http1;
		listen unix:%[1]s/http2 http2;
		if ($allowed = 0) { return 403 "not $http_altsd_peer_user\n"; }
		location / { return 200 "hello $http_altsd_peer_user, $server_protocol\n"; }
	}
}
`, dir), 0o644)
	for _, s := range []string{"http1", "http2"} {
		os.Remove(filepath.Join(dir, s))
	}
	w.beta.serve(t, w.beta.command(web, "nginx", "-c", config, "-e", "stderr"))
	for i, version := range []string{"http1", "http2"} {
		waitFile(t, filepath.Join(dir, version))
		port := 7141 + i
		w.beta.forward(t, web, "--listen", fmt.Sprintf(":%d", port), "--target", "unix:"+filepath.Join(dir, version), "--http",
			"--allow", "*@alpha.example.com")
		flags, want := []string{"--http1.1"}, "hello alice, HTTP/1.1\n"
		if version == "http2" {
			flags, want = []string{"--http2-prior-knowledge"}, "hello alice, HTTP/2.0\n"
		}
		if got := curl(t, w, w.alpha.account("alice"), port, flags...); got.stdout != want {
			t.Errorf("%+v", got)
		}
		for _, forged := range forgedByCurl {
			forged = slices.Clone(forged)
			if version == "http2" && strings.Contains(strings.Join(forged, " "), "Transfer-Encoding") {
				continue // curl speaks HTTP/1.1 then
			}
			for i := range forged { // as whom nginx lets in
				forged[i] = strings.Replace(forged[i], "root@beta", "alice@alpha", 1)
			}
			if got := curl(t, w, w.alpha.account("bob"), port, append(flags, forged...)...); got.stdout != "not bob\n" {
				t.Errorf("%q: %+v", forged, got)
			}
		}
	}
}

// Prometheus scrapes node_exporter: it is proved to be Prometheus's account, and that to be node_exporter's.
func TestPrometheus(t *testing.T) {
	w := theWorld(t)
	need(t, "prometheus", "prometheus-node-exporter", "curl")
	node, scraper := w.beta.account("node"), w.alpha.account("prometheus")
	socket := filepath.Join(w.beta.privateDir(t, node, "exporter"), "socket")
	os.Remove(socket)
	exported, listen, _ := strings.Cut(step(t, "beta: node_exporter by a socket unit"), "\n")
	exporter := strings.Fields(exported)
	// What a socket unit does.
	activate := `import os, socket, sys
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()))
os.execvp(sys.argv[2], sys.argv[2:])`
	w.beta.serve(t, w.beta.command(node, "/usr/bin/python3", "-I", "-c", activate, socket, exporter[0], exporter[1],
		"--collector.disable-defaults", "--collector.uname"))
	waitFile(t, socket)
	w.beta.forward(t, node, words(t, w.beta, node, strings.Replace(listen, "/run/node-exporter/socket", socket, 1))...)
	w.alpha.serve(t, w.alpha.command(scraper, "sh", "-c", "exec "+step(t, "alpha\n")))
	w.alpha.waitPort(t, 9101)
	data := filepath.Join(w.alpha.home(scraper), "data")
	os.RemoveAll(data) // of an earlier run
	config := w.alpha.file(t, scraper, "prometheus.yml", `
global: {scrape_interval: 1s}
scrape_configs:
- job_name: node
  `+step(t, "prometheus.yml"), 0o644)
	w.alpha.serve(t, w.alpha.command(scraper, "prometheus", "--config.file="+config, "--web.listen-address=127.0.0.1:9090",
		"--storage.tsdb.path="+data))
	w.alpha.waitPort(t, 9090)
	query := func(q string) string {
		return w.alpha.run(t, scraper, "curl", "-sS", "--get", "--data-urlencode", "query="+q, "http://127.0.0.1:9090/api/v1/query").stdout
	}
	for end := time.Now().Add(testprog.Patience); ; time.Sleep(200 * time.Millisecond) {
		if got := query(`up{instance="beta.example.com"} == 1 and on() node_uname_info`); strings.Contains(got, `"beta.example.com"`) {
			break
		} else if time.Now().After(end) {
			t.Fatalf("Prometheus has scraped nothing: %s\n%s", got, query("up"))
		}
	}
	// Another account of the same machine is not lent Prometheus's identity, nor let in by its own; a browser is not led there.
	alice := w.alpha.account("alice")
	if got := w.alpha.run(t, alice, "curl", "-sS", "--max-time", "60", "http://127.0.0.1:9101/metrics"); got.code == 0 {
		t.Errorf("alice by Prometheus's port: %+v", got)
	}
	if got := w.alpha.run(t, alice, "shared-altsd", "connect", "--listen", "unix:s", "--setenv", "S=%d/s", "node@beta.example.com:9100", "--",
		"/bin/sh", "-c", `exec curl -sS --max-time 60 --unix-socket "$S" http://x/metrics`); strings.Contains(got.stdout, "node_") {
		t.Errorf("alice by herself: %+v", got)
	}
	headers := map[string]string{"200": "Host: localhost:9101", "421": "Host: evil.example", "403": "Origin: http://evil.example"}
	for status, header := range headers {
		got := w.alpha.run(t, scraper, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", header, "http://127.0.0.1:9101/metrics")
		if got.stdout != status {
			t.Errorf("%s: %+v", header, got)
		}
	}
}

// An answer that ends where its connection does is not whole if that was cut: the program sees a reset, and not an end.
func TestCutAnswer(t *testing.T) {
	w := theWorld(t)
	need(t, "curl")
	web, alice := w.beta.account("web"), w.alpha.account("alice")
	socket := filepath.Join(w.beta.privateDir(t, web, "endless"), "socket")
	os.Remove(socket)
	endless := `import socket, sys, time
s = socket.socket(socket.AF_UNIX)
s.bind(sys.argv[1])
s.listen()
while True:
    c = s.accept()[0]
    c.recv(65536)
    c.sendall(b"HTTP/1.0 200 OK\r\n\r\n")
    try:
        while True:
            c.sendall(b"more\n")
            time.sleep(0.01)
    except OSError:
        pass`
	w.beta.serve(t, w.beta.command(web, "/usr/bin/python3", "-I", "-c", endless, socket))
	waitFile(t, socket)
	listen := w.beta.forward(t, web, "--listen", ":7151", "--target", "unix:"+socket, "--http", "--allow", "alice@alpha.example.com")
	w.alpha.serve(t, w.alpha.command(alice, "shared-altsd", "connect", "--http", "--listen", "127.0.0.1:7152", "web@beta.example.com:7151"))
	w.alpha.waitPort(t, 7152)
	reader := testprog.Talk(t, "curl", w.alpha.command(alice, "/bin/sh", "-c",
		`curl -0 -sSN --max-time 60 http://127.0.0.1:7152/; printf '\nstatus %s\n' $?`))
	for reader.Line() != "more" {
	}
	listen.Kill()
	for line := reader.Line(); ; line = reader.Line() {
		if status, ok := strings.CutPrefix(line, "status "); ok {
			if status == "0" {
				t.Error("curl takes an answer that was cut for a whole one")
			}
			t.Log("curl's exit status is ", status)
			return
		}
	}
}

// A websocket is upgraded to, and its server knows who is at the other end.
func TestWebsocket(t *testing.T) {
	w := theWorld(t)
	if err := exec.Command("/usr/bin/python3", "-I", "-c", "import websockets").Run(); err != nil {
		t.Skip("python3-websockets is not there: make interop-programs installs it on Debian")
	}
	web := w.beta.account("web")
	socket := filepath.Join(w.beta.privateDir(t, web, "websocket"), "socket")
	os.Remove(socket)
	server := `import asyncio, sys, websockets
async def greet(c):
    async for m in c:
        await c.send("%s from %s" % (m, ",".join(c.request_headers.get_all("Altsd-Peer"))))
async def main():
    async with websockets.unix_serve(greet, sys.argv[1]):
        await asyncio.Future()
asyncio.run(main())`
	w.beta.serve(t, w.beta.command(web, "/usr/bin/python3", "-I", "-c", server, socket))
	waitFile(t, socket)
	w.beta.forward(t, web, "--listen", ":7161", "--target", "unix:"+socket, "--http", "--allow", "*@alpha.example.com")
	client := `import asyncio, os, websockets
async def main():
    forged = [("Altsd-Peer", "root@beta.example.com"), ("altsd_peer", "root@beta.example.com")]
    async with websockets.unix_connect(os.environ["S"], "ws://web.example.com/", extra_headers=forged) as c:
        for i in range(3):
            await c.send("hello %d" % i)
            print(await c.recv())
asyncio.run(main())`
	got := w.alpha.must(t, w.alpha.account("alice"), "shared-altsd", "connect", "--listen", "unix:s", "--setenv", "S=%d/s", "web@beta.example.com:7161",
		"--", "/usr/bin/python3", "-I", "-c", client)
	want := ""
	for i := range 3 {
		want += fmt.Sprintf("hello %d from alice@alpha.example.com\n", i)
	}
	if got != want {
		t.Errorf("%q", got)
	}
}

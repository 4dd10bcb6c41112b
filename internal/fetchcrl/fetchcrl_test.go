package fetchcrl

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/wholefile"
)

var number = big.NewInt

// A world is a CA, a server of its lists, and a directory to bring them into.
type world struct {
	t      *testing.T
	ca     *testca.CA
	server *httptest.Server
	serve  atomic.Pointer[http.HandlerFunc] // answers /list; a client that gave up may have left a request behind
	config Config
	now    time.Time
	asked  atomic.Int64
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, ca: testca.MustCA(t, testca.Options{}), now: time.Now()}
	w.server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.asked.Add(1)
		(*w.serve.Load())(rw, r)
	}))
	t.Cleanup(w.server.Close)
	w.config = Config{Issuers: []*x509.Certificate{w.ca.Cert}, URLs: []string{w.server.URL + "/list"}, Dir: t.TempDir(),
		Timeout: 10 * time.Second, MaxSize: 1 << 20}
	return w
}

// answer has f answer /list from now on.
func (w *world) answer(f http.HandlerFunc) { w.serve.Store(&f) }

// gives has the server answer with a body.
func (w *world) gives(body []byte) {
	w.answer(func(rw http.ResponseWriter, _ *http.Request) { rw.Write(body) })
}

// list returns a list with a number, made an hour ago and good for a day.
func (w *world) list(n int64) []byte {
	return testca.MustCRL(w.t, w.ca, []*big.Int{number(n)}, testca.CRLOptions{Number: number(n),
		ThisUpdate: w.now.Add(-time.Hour + time.Duration(n)*time.Minute)})
}

// run makes one run, which must be good or not and say each of want.
func (w *world) run(good bool, want ...string) string {
	w.t.Helper()
	var out strings.Builder
	ok, err := runAt(context.Background(), w.config, func() time.Time { return w.now }, &out, &out)
	if err != nil {
		ok = false
		fmt.Fprintln(&out, err)
	}
	if ok != good {
		w.t.Errorf("good is %v, want %v:\n%s", ok, good, out.String())
	}
	for _, text := range want {
		if !strings.Contains(out.String(), text) {
			w.t.Errorf("no %q in:\n%s", text, out.String())
		}
	}
	return out.String()
}

// has compares the lists of the directory with those given; nothing else is in it but what belongs there.
func (w *world) has(want ...[]byte) {
	w.t.Helper()
	entries, err := os.ReadDir(w.config.Dir)
	if err != nil {
		w.t.Fatal(err)
	}
	var got [][]byte
	for _, e := range entries {
		switch {
		case strings.HasSuffix(e.Name(), listEnd):
			data, err := os.ReadFile(filepath.Join(w.config.Dir, e.Name()))
			if err != nil {
				w.t.Fatal(err)
			}
			got = append(got, data)
		case e.Name() != lockName && e.Name() != stateName:
			w.t.Errorf("%s is there", e.Name())
		}
	}
	for _, data := range want {
		if !slices.ContainsFunc(got, func(g []byte) bool { return bytes.Equal(g, data) }) {
			w.t.Errorf("a list is not there, of %d", len(got))
		}
	}
	if len(got) != len(want) {
		w.t.Errorf("%d lists, want %d", len(got), len(want))
	}
}

// A newer list takes the place of an older one, never the other way, and what is no list to be used takes no place.
func TestListsGoForward(t *testing.T) {
	w := newWorld(t)
	second := w.list(2)
	w.gives(second)
	w.run(true, "list      "+w.server.URL+"/list: number 2 of ")
	w.has(second)
	third := w.list(3)
	other := testca.MustCA(t, testca.Options{Name: w.ca.Cert.Subject.CommonName})
	stranger := testca.MustCA(t, testca.Options{})
	made := func(ca *testca.CA, n int64, o testca.CRLOptions) []byte {
		o.Number = number(n)
		return testca.MustCRL(t, ca, nil, o)
	}
	ext := func(e pkix.Extension) testca.CRLOptions { return testca.CRLOptions{Extensions: []pkix.Extension{e}} }
	indirect := testca.IssuingDistributionPoint
	indirect.Value = []byte{0x30, 0x03, 0x84, 0x01, 0xff}
	for _, tt := range []struct {
		name string
		body []byte
		want string
	}{
		{"older", w.list(1), "is older than the one that is there"},
		{"other content", made(w.ca, 2, testca.CRLOptions{ThisUpdate: w.now.Add(-58 * time.Minute)}), "has the same number and time"},
		{"newer, over", made(w.ca, 9, testca.CRLOptions{ThisUpdate: w.now.Add(-48 * time.Hour)}), "was due to be replaced"},
		{"newer, of the future", made(w.ca, 9, testca.CRLOptions{ThisUpdate: w.now.Add(time.Hour)}), "from the future"},
		{"another key of that name", made(other, 9, testca.CRLOptions{}), "its signature is not that CA's"},
		{"another CA", made(stranger, 9, testca.CRLOptions{}), "none of the CAs that are trusted"},
		{"a delta", made(w.ca, 9, ext(testca.DeltaIndicator)), "delta list"},
		{"indirect", made(w.ca, 9, ext(indirect)), "indirect list"},
		{"damaged", append(bytes.Clone(third[:len(third)-1]), third[len(third)-1]^1), "not that CA's"},
		{"cut", third[:len(third)/2], "not a revocation list"},
		{"garbage", []byte("<html>404</html>"), "no PEM block"},
		{"nothing", nil, "empty"},
		{"a certificate", w.ca.Cert.Raw, "not a list to be used"},
		{"two lists", slices.Concat(pemList(second), pemList(third)), "it has 2 lists"},
	} {
		w.gives(tt.body)
		if out := w.run(true, tt.want, "the list that is there stays"); strings.Count(out, "\n") != 1 {
			t.Errorf("%s: not one line: %s", tt.name, out)
		}
		w.has(second)
	}
	w.gives(pemList(third))
	w.run(true, "number 3 of ")
	w.has(third)
	// A list that is over is no reason to go back.
	w.now = w.now.Add(48 * time.Hour)
	w.run(false, "was due to be replaced", "none is there that is good now")
	w.has(third)
}

func pemList(der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}) }

// What has not changed is not sent again, and is fetched whole once the file is not what was sent.
func TestConditional(t *testing.T) {
	for _, header := range []string{"ETag", "Last-Modified"} {
		w := newWorld(t)
		list, sent := w.list(1), 0
		asks := map[string]string{"ETag": "If-None-Match", "Last-Modified": "If-Modified-Since"}[header]
		w.answer(func(rw http.ResponseWriter, r *http.Request) {
			rw.Header().Set(header, `"v1"`)
			if r.Header.Get(asks) == `"v1"` {
				rw.WriteHeader(http.StatusNotModified)
				return
			}
			sent++
			rw.Write(list)
		})
		w.run(true)
		w.run(true, "number 1 of ")
		if sent != 1 || w.asked.Load() != 2 {
			t.Errorf("%s: sent %d times of %d", header, sent, w.asked.Load())
		}
		w.has(list)
		names, _ := filepath.Glob(filepath.Join(w.config.Dir, "*"+listEnd))
		if err := os.WriteFile(names[0], []byte("damaged"), 0o644); err != nil {
			t.Fatal(err)
		}
		w.run(true)
		w.has(list)
		if err := os.Remove(names[0]); err != nil {
			t.Fatal(err)
		}
		w.run(true)
		w.has(list)
		// A damaged memory is said, and begun anew.
		if err := os.WriteFile(filepath.Join(w.config.Dir, stateName), []byte(`{"places":{"file:///":{}}}`), 0o644); err != nil {
			t.Fatal(err)
		}
		w.run(true, "is damaged")
		if sent != 4 {
			t.Errorf("%s: sent %d times, want 4", header, sent)
		}
		w.now = w.now.Add(22 * time.Hour)
		w.run(true)
		if sent != 4 {
			t.Errorf("%s: sent %d times, want 4", header, sent)
		}
		// What the server says of changes is not believed for more than a day, nor of a list that is over.
		w.now = w.now.Add(2 * time.Hour)
		list = testca.MustCRL(t, w.ca, nil, testca.CRLOptions{NextUpdate: w.now.Add(time.Hour)})
		w.run(true)
		w.has(list)
		w.now = w.now.Add(2 * time.Hour)
		w.run(false, "is not used: it was due to be replaced")
		if sent != 6 {
			t.Errorf("%s: sent %d times, want 6", header, sent)
		}
	}
	w := newWorld(t)
	w.answer(func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(http.StatusNotModified) })
	w.run(false, "was not asked that")
}

// A server that gives without end, slowly, packed or not at all is left, and costs no list.
func TestBadServers(t *testing.T) {
	w := newWorld(t)
	list := w.list(1)
	w.gives(list)
	w.run(true)
	w.config.Timeout = time.Second
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	z.Write(make([]byte, 8<<20))
	z.Close()
	endless := func(rw http.ResponseWriter, r *http.Request) {
		for chunk := make([]byte, 64<<10); ; {
			if _, err := rw.Write(chunk); err != nil {
				return
			}
		}
	}
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	slow := func(rw http.ResponseWriter, r *http.Request) {
		rw.Write(list[:1])
		rw.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	header := func(name, value string, body []byte) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			rw.Header().Set(name, value)
			rw.Write(body)
		}
	}
	cut := func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", "100000")
		rw.Write(list)
	}
	for _, tt := range []struct {
		name  string
		serve http.HandlerFunc
		want  string
	}{
		{"endless", endless, "more than 1048576 bytes"},
		{"said to be large", header("Content-Length", "9999999", nil), "more than 1048576 bytes"},
		{"silent", hang, "took too long"},
		{"stands still", slow, "took too long"},
		{"packed", header("Content-Encoding", "gzip", bomb.Bytes()), "encoded"},
		{"large headers", header("X-Much", strings.Repeat("x", 128<<10), list), "see to the server"},
		{"cut off", cut, "see to the server"},
		{"not found", http.NotFound, "the server answers 404"},
		{"redirect to nowhere", func(rw http.ResponseWriter, _ *http.Request) { rw.WriteHeader(302) }, "the server answers 302"},
	} {
		w.answer(tt.serve)
		t.Log(tt.name)
		w.run(true, tt.want, "the list that is there stays")
		w.has(list)
	}
	// Without one that is there it is a failure, and none is written.
	w.config.Dir = t.TempDir()
	w.run(false, "none is there that is good now")
	w.has()
	w.server.Close()
	w.run(false, "connection refused")
}

// Redirects are followed three times, not from https to http, and not to this machine but within the URL of --url.
func TestRedirects(t *testing.T) {
	w := newWorld(t)
	list := w.list(1)
	hops := 0
	w.answer(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/end" {
			rw.Write(list)
			return
		}
		hops++
		to := fmt.Sprintf("/%d", hops)
		if hops == 3 {
			to = "/end"
		}
		http.Redirect(rw, r, to, http.StatusFound)
	})
	w.run(true, "number 1 of ")
	w.has(list)
	w.answer(func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "/list", http.StatusMovedPermanently)
	})
	w.asked.Store(0)
	w.run(true, "redirected more than 3 times")
	if w.asked.Load() != 4 {
		t.Errorf("asked %d times, want 4", w.asked.Load())
	}
	to := func(u string) {
		w.answer(func(rw http.ResponseWriter, _ *http.Request) { rw.Header().Set("Location", u); rw.WriteHeader(307) })
	}
	other := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { t.Error("asked") }))
	defer other.Close()
	to(other.URL)
	w.run(true, "leads to this machine")
	to(strings.Replace(other.URL, "127.0.0.1", "localhost", 1))
	w.run(true, "leads to this machine")
	to(strings.Replace(other.URL, "127.0.0.1", "127.1", 1)) // what a resolver makes of it is judged, or does not resolve
	w.run(true, "the list that is there stays")
	to("file:///etc/passwd")
	w.run(true, "neither http nor https")
	to("http://user:secret@192.0.2.1/")
	if out := w.run(true, "user's name"); strings.Contains(out, "secret") {
		t.Error(out)
	}
	to("http://[::1")
	w.run(true, "missing ']' in host")
	w.has(list)
}

// A CA's own certificate is believed for its server, and such a server sends nobody to plain http.
func TestHTTPS(t *testing.T) {
	w := newWorld(t)
	list := w.list(1)
	w.gives(list)
	plain := w.server.URL
	machine := testca.MustIssue(t, w.ca, testca.Leaf{Hosts: []string{"crl.test"}, IPs: loopback})
	secure := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(rw, r, plain+"/list", http.StatusFound)
			return
		}
		rw.Write(list)
	}))
	secure.TLS = serverTLS(t, machine)
	secure.StartTLS()
	defer secure.Close()
	w.config.URLs = []string{secure.URL + "/away"}
	w.run(false, "redirected from https")
	w.config.URLs = []string{secure.URL + "/list"}
	w.run(true, "number 1 of ")
	w.has(list)
	w.config.Issuers = []*x509.Certificate{testca.MustCA(t, testca.Options{}).Cert}
	w.run(false, "certificate signed by unknown authority")
}

// The places that certificates name are asked, but for those that nobody should be sent to by a certificate.
func TestPlacesOfCertificates(t *testing.T) {
	w := newWorld(t)
	w.gives(w.list(1))
	port := w.server.URL[strings.LastIndex(w.server.URL, ":"):]
	for _, tt := range []struct{ url, want string }{
		{"http://127.0.0.1" + port + "/list", "leads to this machine"},
		{"http://[::1]" + port + "/list", "leads to this machine"},
		{"http://[::ffff:127.0.0.1]" + port + "/list", "leads to this machine"},
		{"http://[64:ff9b::7f00:1]" + port + "/list", "leads to this machine"},
		{"http://0.0.0.0" + port + "/list", "leads to this machine"},
		{"http://169.254.169.254/latest", "leads to this machine"},
		{"http://LOCALHOST" + port + "/list", "leads to this machine"},
		{"http://ip6-localhost" + port + "/list", "not fetched"}, // by /etc/hosts loopback, or no name
		{"http://user@192.0.2.1/list", "user's name"},
		{"file:///etc/passwd", "neither http nor https"},
		{"ldap://ldap.example.com/cn=CA?certificateRevocationList", "not fetched by LDAP"},
		{"gopher://192.0.2.1/", "neither http nor https"},
		{"http:192.0.2.1", "names no host"},
		{"http:///list", "names no host"},
		{"http://192.0.2.1/" + strings.Repeat("x", 4000), "bytes"},
	} {
		leaf := testca.MustIssue(t, w.ca, testca.Leaf{Hosts: []string{"a.test"}, ExtraExtensions: []pkix.Extension{longPlace(tt.url)}})
		w.config.URLs, w.config.Certificates = nil, []*x509.Certificate{leaf.Cert}
		w.asked.Store(0)
		w.run(false, tt.want)
		if w.asked.Load() != 0 {
			t.Errorf("%s was asked", tt.url)
		}
		// The administrator's own word stands.
		if tt.want == "leads to this machine" && strings.HasPrefix(tt.url, "http://127.") {
			w.config.URLs = []string{tt.url}
			w.run(true)
		}
	}
	w.list0()
}

// Either place of one distribution point will do; two points are two lists.
func TestAlternatives(t *testing.T) {
	w := newWorld(t)
	leaf := testca.MustIssue(t, w.ca, testca.Leaf{Hosts: []string{"a.test"}, ExtraExtensions: []pkix.Extension{
		testca.Places([]string{"ldap://x/", "http://b.test/l", "http://a.test/l"})}})
	other := testca.MustIssue(t, w.ca, testca.Leaf{Hosts: []string{"b.test"}, ExtraExtensions: []pkix.Extension{
		testca.Places([]string{"ldap://x/", "http://c.test/l"})}})
	var said strings.Builder
	r := &run{Config: &Config{Certificates: []*x509.Certificate{leaf.Cert, other.Cert, leaf.Cert}, URLs: []string{"http://d.test/"}},
		good: &said, bad: &said}
	if got := fmt.Sprint(r.sources()); got != "[{[http://d.test/] true} {[http://a.test/l http://b.test/l] false} {[http://c.test/l] false}]" {
		t.Error(got)
	}
	if strings.Count(said.String(), "LDAP") != 1 {
		t.Error(said.String())
	}
	// No certificate's places leave none for another's.
	many := testca.MustIssue(t, w.ca, testca.Leaf{Hosts: []string{"c.test"}, ExtraExtensions: []pkix.Extension{manyPlaces(100)}})
	r.Certificates, r.URLs = []*x509.Certificate{many.Cert, leaf.Cert}, nil
	if got := r.sources(); len(got) != maxPoints+1 {
		t.Errorf("%d places, want %d", len(got), maxPoints+1)
	}
	r.Certificates = nil
	for i := range 10 {
		many := testca.MustIssue(t, w.ca, testca.Leaf{Hosts: []string{"c.test"}, ExtraExtensions: []pkix.Extension{manyPlaces(100 + 1000*i)}})
		r.Certificates = append(r.Certificates, many.Cert)
	}
	if got := r.sources(); len(got) != maxSources || !strings.Contains(said.String(), "there are 64 places already") {
		t.Errorf("%d places, want %d", len(got), maxSources)
	}
	// A list is there when the second place gives it.
	list := w.list(1)
	w.gives(list)
	rr := &run{Config: &w.config, now: func() time.Time { return w.now }, good: &said, bad: &said, client: newClient(w.config.Issuers, 1<<20)}
	var err error
	if rr.store, err = openStore(w.config.Dir); err != nil {
		t.Fatal(err)
	}
	s := source{urls: []string{w.server.URL + "/\x01", w.server.URL + "/list"}, admin: true}
	rr.state.only([]source{s})
	if err := rr.look(); err != nil {
		t.Fatal(err)
	}
	rr.bring(t.Context(), s)
	rr.store.close()
	if rr.failed {
		t.Error(said.String())
	}
	w.has(list)
}

func TestForbidden(t *testing.T) {
	for address, want := range map[string]bool{"127.8.9.1": true, "::1": true, "::ffff:127.0.0.1": true, "169.254.169.254": true,
		"fe80::1%eth0": true, "224.0.0.1": true, "ff02::1": true, "0.0.0.0": true, "0.1.2.3": true, "::": true, "255.255.255.255": true,
		"64:ff9b::a9fe:a9fe": true, "fd00:ec2::254": true, "10.0.0.1": false, "192.168.1.1": false, "172.16.0.1": false,
		"fd00::1": false, "192.0.2.1": false, "2001:db8::1": false, "64:ff9b::c000:201": false} {
		if got := forbidden(netip.MustParseAddr(address)) != ""; got != want {
			t.Errorf("%s: %v, want %v", address, got, want)
		}
		if got := guard("tcp", netip.AddrPortFrom(netip.MustParseAddr(address), 80).String(), nil) != nil; got != want {
			t.Errorf("guard of %s: %v, want %v", address, got, want)
		}
	}
	if guard("tcp", "nonsense", nil) == nil {
		t.Error("guard lets through what it cannot read")
	}
}

// The address that a name resolves to is judged, not the name.
func TestGuardAtConnect(t *testing.T) {
	w := newWorld(t)
	w.gives(w.list(1))
	c := newClient(w.config.Issuers, 1<<20)
	if _, err := c.guarded.Get(w.server.URL); err == nil || !strings.Contains(err.Error(), "is loopback") || w.asked.Load() != 0 {
		t.Errorf("asked %d times: %v", w.asked.Load(), err)
	}
}

// One run at a time has the directory, and what one left half is removed.
func TestStore(t *testing.T) {
	w := newWorld(t)
	list := w.list(1)
	w.gives(list)
	if err := os.WriteFile(filepath.Join(w.config.Dir, wholefile.TempStart+"1"), list[:9], 0o600); err != nil {
		t.Fatal(err)
	}
	inside := make(chan string, 1)
	w.answer(func(rw http.ResponseWriter, _ *http.Request) {
		var out strings.Builder
		_, err := Run(context.Background(), w.config, &out, &out)
		inside <- fmt.Sprint(err)
		rw.Write(list)
	})
	w.run(true)
	if got := <-inside; !strings.Contains(got, "another run has") {
		t.Error(got)
	}
	w.has(list)
	info, err := os.Stat(filepath.Join(w.config.Dir, fileName(mustRead(t, w, list))))
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("%v %v", info, err)
	}
	// A list that no place gives any more is told once it is over.
	w.config.URLs = nil
	w.run(false, "no list is wanted")
	w.config.URLs = []string{w.server.URL + "/more"}
	second := testca.MustCA(t, testca.Options{})
	w.config.Issuers = append(w.config.Issuers, second.Cert)
	w.gives(testca.MustCRL(t, second, nil, testca.CRLOptions{NextUpdate: w.now.Add(200 * time.Hour)}))
	w.run(true)
	w.now = w.now.Add(48 * time.Hour)
	w.run(false, "which no place that is asked gives: it was due", "--forget-list")
	w.config.Dir = filepath.Join(w.config.Dir, "none")
	w.run(false, "--into: ", "make the directory")
}

func TestJitterEnds(t *testing.T) {
	w := newWorld(t)
	w.config.Jitter = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(ctx, w.config, new(strings.Builder), new(strings.Builder)); err != context.Canceled {
		t.Error(err)
	}
}

func TestTextfile(t *testing.T) {
	w := newWorld(t)
	w.config.Textfile, w.config.Machine = filepath.Join(t.TempDir(), "lists.prom"), "a.test"
	w.gives(w.list(1))
	w.run(true)
	shown := func(want string) {
		t.Helper()
		data, err := os.ReadFile(w.config.Textfile)
		if err != nil || !strings.Contains(string(data), want) {
			t.Errorf("no %q: %v\n%s", want, err, data)
		}
	}
	label := fmt.Sprintf("{url=%q,machine=\"a.test\"} ", w.config.URLs[0])
	shown("\nshared_altsd_fetch_crl_failed{machine=\"a.test\"} 0\n")
	shown("\nshared_altsd_fetch_crl_failing_since_seconds" + label + "0\n")
	shown("\nshared_altsd_fetch_crl_success_seconds" + label + fmt.Sprint(w.now.Unix()) + "\n")
	first := w.now.Unix()
	w.answer(http.NotFound)
	w.now = w.now.Add(time.Hour)
	since := w.now.Unix()
	w.run(true)
	w.now = w.now.Add(time.Hour)
	w.run(true)
	shown("\nshared_altsd_fetch_crl_failing_since_seconds" + label + fmt.Sprint(since) + "\n")
	shown("\nshared_altsd_fetch_crl_success_seconds" + label + fmt.Sprint(first) + "\n")
	w.now = w.now.Add(48 * time.Hour)
	w.run(false)
	shown("\nshared_altsd_fetch_crl_failed{machine=\"a.test\"} 1\n")
	w.config.Textfile = "/proc/none.prom"
	w.run(false, "--textfile: ")
}

// However many places there are, those that have failed for longest are told apart, and the others counted.
func TestRule65PlacesAreBounded(t *testing.T) {
	now := time.Now()
	r := &run{Config: &Config{Machine: "a.test"}, now: func() time.Time { return now }, state: state{Places: map[string]*place{}}}
	var sources []source
	for i := range maxSources {
		url := fmt.Sprintf("http://ca.test/%d", i)
		sources = append(sources, source{urls: []string{url, url + "/other"}})
		r.state.Places[url] = &place{Succeeded: now}
		if i >= 40 {
			r.state.Places[url].FailingSince = now.Add(-time.Duration(i) * time.Minute)
		}
	}
	text := r.metrics(sources)
	samples := 0
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		samples++
		if !strings.Contains(line, `machine="a.test"} `) {
			t.Errorf("no machine in %s", line)
		}
	}
	if samples > 20 || !strings.Contains(text, fmt.Sprintf("shared_altsd_fetch_crl_failing{machine=\"a.test\"} %d\n", maxSources-40)) {
		t.Errorf("%d samples:\n%s", samples, text)
	}
	for i := range maxPlaces {
		if url := fmt.Sprintf("http://ca.test/%d", maxSources-1-i); !strings.Contains(text, "failing_since_seconds{url=\""+url+"\"") {
			t.Errorf("%s is not told of:\n%s", url, text)
		}
	}
}

// The machine is that of its own certificate, not of a CA's that stands beside it.
func TestMachineName(t *testing.T) {
	ca := testca.MustCA(t, testca.Options{})
	leaf := testca.MustIssue(t, ca, testca.Leaf{Hosts: []string{"alpha.example.com", "other.example.com"}})
	if got := MachineName([]*x509.Certificate{ca.Cert, leaf.Cert}); got != "alpha.example.com" {
		t.Error(got)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	if got := MachineName([]*x509.Certificate{ca.Cert}); got != strings.ToLower(host) {
		t.Error(got)
	}
}

func FuzzState(f *testing.F) {
	f.Add([]byte(`{"places":{"http://a.test/":{"file":"00112233445566778899aabbccddeeff.crl","etag":"\"x\""}}}`))
	f.Add([]byte(`{"places":{"http://a.test/":{"file":"../../etc/passwd"}}}`))
	f.Add([]byte(`{"places":{"http://a.test/":null}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseState(data)
		if err != nil {
			return
		}
		for u, p := range s.Places {
			if CheckURL(u) != nil || p.File != "" && filepath.Base(p.File) != p.File || strings.ContainsAny(p.ETag+p.LastModified, "\r\n") {
				t.Errorf("taken: %q %+v", u, p)
			}
		}
	})
}

func FuzzURL(f *testing.F) {
	for _, u := range []string{"http://a.test/x", "http://127.0.0.1/", "http://[::1%25lo]/", "http:\\\\a", "HTTPS://A:99/"} {
		f.Add(u)
	}
	f.Fuzz(func(t *testing.T, u string) {
		if checkURL(u, false) != nil {
			return
		}
		req, err := http.NewRequest(http.MethodGet, u, nil)
		if err != nil || req.URL.User != nil || req.URL.Host == "" || req.URL.Scheme != "http" && req.URL.Scheme != "https" {
			t.Errorf("%q was taken: %v", u, err)
			return
		}
		if a, err := netip.ParseAddr(req.URL.Hostname()); err == nil && (a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified()) {
			t.Errorf("%q was taken", u)
		}
	})
}

// A CA whose list is for other certificates each time leaves the daemon's bounds to others' lists.
func TestListsOfOneCA(t *testing.T) {
	w := newWorld(t)
	part := func(uri string) []byte {
		idp := testca.IssuingDistributionPoint
		n := byte(len(uri))
		idp.Value = append([]byte{0x30, n + 6, 0xa0, n + 4, 0xa0, n + 2, 0x86, n}, uri...)
		return testca.MustCRL(t, w.ca, nil, testca.CRLOptions{Number: number(1), Extensions: []pkix.Extension{idp}})
	}
	var had [][]byte
	for i := range maxListsOfCA {
		had = append(had, part(fmt.Sprintf("http://a.test/%d", i)))
		w.gives(had[i])
		w.run(true, "number 1 of ")
	}
	w.gives(part("http://a.test/more"))
	w.run(true, "would make 17 of its CA", "the list that is there stays")
	w.has(had...)
}

// Lists have room for as many bytes of one CA, and of all, as the daemon reads.
func TestRoomInBytes(t *testing.T) {
	w := newWorld(t)
	list := mustRead(t, w, w.list(1))
	own, size := string(list.Mark.Key), len(list.DER)
	for _, tc := range []struct {
		name  string
		there map[string]held
		want  string
	}{
		{"none", nil, ""},
		{"its own before", map[string]held{"new": {own, certbind.MaxBytesOfCA}}, ""},
		{"as many as may be of its CA", map[string]held{"a": {own, certbind.MaxBytesOfCA - size}}, ""},
		{"too many of its CA", map[string]held{"a": {own, certbind.MaxBytesOfCA - size + 1}}, "of its CA"},
		{"as many as may be of all", map[string]held{"a": {"b", maxBytes / 2}, "c": {"d", maxBytes/2 - size}}, ""},
		{"too many of all", map[string]held{"a": {"b", maxBytes / 2}, "c": {"d", maxBytes/2 - size + 1}}, "of all lists"},
	} {
		r := run{Config: &w.config, there: tc.there}
		if err := r.room("new", list); (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

// A list that is there and cannot be compared is not one that is not there.
func TestUnreadList(t *testing.T) {
	w := newWorld(t)
	second := w.list(2)
	w.gives(second)
	w.run(true, "number 2 of ")
	w.config.MaxSize = len(second) - 1 // which an older one, without a revocation, may be under
	w.gives(testca.MustCRL(t, w.ca, nil, testca.CRLOptions{Number: number(1), ThisUpdate: w.now.Add(-2 * time.Hour)}))
	w.run(true, "is older than the one that is there", "the list that is there stays")
	w.has(second)
	name := filepath.Join(w.config.Dir, fileName(mustRead(t, w, second)))
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(name, 0o700); err != nil {
		t.Fatal(err)
	}
	w.run(false, "cannot be known", "is not a plain file")
}

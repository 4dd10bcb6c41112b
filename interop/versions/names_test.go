package versions

import (
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// named are the names in a release's sources that scripts, alerts and searches live by.
type named struct{ metrics, messages, keys map[string]bool }

// metric is the name of a family. What the sources hold beside are prefixes.
var metric = regexp.MustCompile(`^(shared_altsd|go|process)_[a-z0-9_]*[a-z0-9]$`)

// key is the name of a field of the log.
var key = regexp.MustCompile(`^[a-z][a-z_ ]*$`)

// names reads the sources of a release, without tests and what serves them alone.
func names(t *testing.T, r *release) named {
	t.Helper()
	n := named{map[string]bool{}, map[string]bool{}, map[string]bool{}}
	for _, dir := range []string{"altscreds", "certbind", "cmd", "internal", "noiseproto", "service"} {
		err := filepath.WalkDir(filepath.Join(r.source, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "/internal/test") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err == nil {
				ast.Inspect(file, n.look)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(n.metrics) < 30 || len(n.messages) < 40 || len(n.keys) < 40 {
		t.Fatalf("%s: only %d metrics, %d messages and %d keys were found", r.name, len(n.metrics), len(n.messages), len(n.keys))
	}
	return n
}

// look notes what one node names.
func (n named) look(node ast.Node) bool {
	switch node := node.(type) {
	case *ast.BasicLit:
		if s, ok := literal(node); ok && metric.MatchString(s) {
			n.metrics[s] = true
		}
	case *ast.CallExpr:
		f, ok := node.Fun.(*ast.SelectorExpr)
		if !ok {
			break
		}
		args := node.Args
		switch f.Sel.Name {
		case "Log": // of slog, with a context and a level
			if len(args) < 3 {
				return true
			}
			args = args[2:]
		case "Debug", "Info", "Warn", "Error":
		default:
			return true
		}
		if len(args) == 0 {
			break
		}
		message, ok := literal(args[0])
		if !ok {
			break
		}
		n.messages[message] = true
		n.attrs(args[1:])
	case *ast.CompositeLit: // []any{"key", value}
		if list, ok := node.Type.(*ast.ArrayType); ok {
			if of, ok := list.Elt.(*ast.Ident); ok && of.Name == "any" {
				n.attrs(node.Elts)
			}
		}
	}
	return true
}

// attrs notes the keys among the arguments of a log call: each is before its value.
func (n named) attrs(args []ast.Expr) {
	for i := 0; i < len(args); i += 2 {
		s, ok := literal(args[i])
		if !ok {
			return
		}
		if key.MatchString(s) {
			n.keys[s] = true
		}
	}
}

func literal(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(l.Value)
	return s, err == nil
}

// TestNames: what the last release called metrics, events of the log and their fields is called so still.
func TestNames(t *testing.T) {
	was, is := releases(t)
	before, now := names(t, was), names(t, is)
	for _, part := range []struct {
		kind        string
		before, now map[string]bool
	}{{"metric", before.metrics, now.metrics}, {"message", before.messages, now.messages}, {"key", before.keys, now.keys}} {
		meant := gone(t, part.kind)
		for name := range part.before {
			if !part.now[name] && !meant(name) {
				t.Errorf("%s %q of the last release is gone: it is part of the promise (docs/upgrade.md)", part.kind, name)
			}
		}
	}
}

// TestScrape: each sample of the last release's daemon is there with all its labels.
func TestScrape(t *testing.T) {
	meant := gone(t, "label")
	metrics := listed(t, "metric") // which TestNames holds to the sources
	families := map[string]map[string][]string{}
	for _, r := range both(t) {
		families[r.name] = samples(t, r)
	}
	for name, labels := range families["last"] {
		now, there := families["today"][name]
		if !there {
			if metrics[name] == "" {
				t.Errorf("%s is gone", name)
			}
			continue
		}
		for _, label := range labels {
			if !slices.Contains(now, label) && !meant(name+" "+label) {
				t.Errorf("%s has no label %s any more", name, label)
			}
		}
	}
}

// samples are the names of a daemon's samples and their labels, after handshakes that came out in several ways.
func samples(t *testing.T, r *release) map[string][]string {
	t.Helper()
	s := newSite(t)
	m := s.machine("a.test", "--metrics", "unix:"+s.path("metrics")).start(r)
	program := application{today.Get(t), false}
	address := program.serve(m)
	other := s.machine("b.test")
	for _, target := range []*machine{m, other} {
		if got := program.call(m, target, address); (got.Failed == 0) != (target == m) {
			t.Fatalf("%+v", got)
		}
	}
	found := map[string][]string{}
	for _, line := range regexp.MustCompile(`(?m)^([a-z_]+)(?:\{(.*)\})? `).FindAllStringSubmatch(scrape(t, s.path("metrics")), -1) {
		found[line[1]] = append(found[line[1]], "")
		for _, label := range regexp.MustCompile(`([a-z_]+)="`).FindAllStringSubmatch(line[2], -1) {
			if !slices.Contains(found[line[1]], label[1]) {
				found[line[1]] = append(found[line[1]], label[1])
			}
		}
	}
	if len(found) < 20 {
		t.Fatalf("%s has hardly any metrics: %v", r.name, found)
	}
	return found
}

// scrape reads the metrics at a UNIX socket.
func scrape(t *testing.T, socket string) string {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Minute))
	io.WriteString(c, "GET /metrics HTTP/1.0\r\n\r\n")
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestLines: the lines of a day's events have all the fields that they had, with a form of value that is the same.
func TestLines(t *testing.T) {
	lines := map[string]map[string]map[string]string{}
	for _, r := range both(t) {
		lines[r.name] = events(t, r)
	}
	meant := gone(t, "field")
	for event, fields := range lines["last"] {
		now, there := lines["today"][event]
		if !there {
			t.Errorf("the daemon says %q no more", event)
			continue
		}
		for field, form := range fields {
			if now[field] != form && !meant(strconv.Quote(event)+" "+field) {
				t.Errorf("%q: %s was %s, and is %q", event, field, form, now[field])
			}
		}
	}
}

// events drives a daemon through a start, handshakes, a refusal, a denial, a reload and a stop, and returns the fields of what it
// logs and the JSON type of each.
func events(t *testing.T, r *release) map[string]map[string]string {
	t.Helper()
	s := newSite(t)
	m := s.machine("a.test", "--log-format", "json").start(r)
	program := application{today.Get(t), false}
	address := program.serve(m)
	if got := program.call(m, m, address); got.Failed != 0 {
		t.Fatalf("%+v", got)
	}
	for _, o := range []outcome{m.tell(r, "deny", "--denied", s.path("a.test.denied"), m.account()),
		m.tell(r, "reload"), m.tell(r, "deny", "--denied", s.path("a.test.denied"), "--remove", m.account())} {
		if o.code != 0 {
			t.Fatal(o)
		}
	}
	if got := program.call(m, s.machine("b.test"), address); got.Failed != 1 {
		t.Fatalf("%+v", got)
	}
	process := m.process
	m.stop()
	found := map[string]map[string]string{}
	for _, line := range process.Log.All() {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		event, _ := fields["msg"].(string)
		switch event {
		case "shared-altsd starts", "handshake done", "handshake failed", "reloaded", "denied", "denial lifted", "stopping", "stopped":
		default:
			continue
		}
		if found[event] == nil {
			found[event] = map[string]string{}
		}
		for field, v := range fields {
			form := "text"
			if _, number := v.(float64); number {
				form = "a number"
			}
			found[event][field] = form
		}
	}
	if len(found) < 8 {
		t.Fatalf("%s says only %v:\n%s", r.name, found, process.Log)
	}
	return found
}

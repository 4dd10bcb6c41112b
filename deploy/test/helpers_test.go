//go:build deploy

// Package deploytest tests the deployment with the real things: docker, systemd, dpkg and rpm, promtool. `make
// test-deploy` builds what it needs and runs it.
package deploytest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// root is the top of the work tree, in which the paths of this package begin.
const root = "../.."

// daemonUID is the uid of the daemon's containers (deploy/compose.yaml).
const daemonUID = 10001

// command runs a program to its end and gives its standard output, and an error that holds its standard error.
func command(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = root
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}

// must is command, for what has to work.
func must(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := command(name, args...)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return out
}

// waitFor asks until ok is true; it fails the test when that takes longer than any machine should need.
func waitFor(t *testing.T, what string, ok func() (bool, string)) {
	t.Helper()
	last := ""
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		good, state := ok()
		if good {
			return
		}
		last = state
	}
	t.Fatalf("waited a minute for %s: %s", what, last)
}

// A pki makes the certificates of the machines under test.
type pki struct {
	t            *testing.T
	ca, other    *testca.CA
	intermediate *testca.CA // valid at first sight, expired in fact
}

func newPKI(t *testing.T) *pki {
	ca := testca.MustCA(t, testca.Options{Name: "Example CA"})
	return &pki{t, ca, testca.MustCA(t, testca.Options{Name: "Foreign CA"}),
		testca.MustIntermediate(t, ca, testca.Options{Name: "Expired intermediate CA",
			NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-time.Hour)})}
}

func (p *pki) issue(ca *testca.CA, host string, lives ...time.Duration) *testca.Issued {
	p.t.Helper()
	leaf := testca.Leaf{Hosts: []string{host}}
	if len(lives) > 0 {
		leaf.NotBefore, leaf.NotAfter = time.Now().Add(-48*time.Hour), time.Now().Add(lives[0])
	}
	return testca.MustIssue(p.t, ca, leaf)
}

func (p *pki) crl(serials ...*big.Int) []byte {
	p.t.Helper()
	return testca.MustCRL(p.t, p.ca, serials, testca.CRLOptions{})
}

// replace puts a file in place of another at once, as tools that renew certificates do.
func replace(t *testing.T, path string, data []byte, mode os.FileMode, uid int) {
	t.Helper()
	temp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".new")
	if err := os.WriteFile(temp, data, mode); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(temp, mode), os.Chown(temp, uid, uid), os.Rename(temp, path)); err != nil {
		t.Fatal(err)
	}
}

// A report is what testapp call prints.
type report struct {
	Channels int            `json:"channels"`
	Failed   int            `json:"failed"`
	Errors   map[string]int `json:"errors"`
	Peer     string         `json:"peer"`
	SeenAs   string         `json:"seen_as"`
	Slowest  float64        `json:"slowest_ms"`
}

func (r report) String() string {
	return fmt.Sprintf("%d channels, %d failed, slowest %.0f ms %v", r.Channels, r.Failed, r.Slowest, r.Errors)
}

// daemonStatus is a part of what status --json prints.
type daemonStatus struct {
	Version     string `json:"version"`
	Machine     string `json:"machine"`
	Certificate struct {
		Serial string `json:"serial"`
	} `json:"certificate"`
	Initiator struct {
		InFlight int `json:"in_flight"`
	} `json:"initiator"`
	Responder struct {
		Accepted int `json:"accepted"`
	} `json:"responder"`
	Reloads struct {
		Succeeded int    `json:"succeeded"`
		Failed    int    `json:"failed"`
		LastError string `json:"last_error"`
	} `json:"reloads"`
	Faults []struct {
		What    string `json:"what"`
		Warning bool   `json:"warning"`
	} `json:"faults"`
}

// decode reads the JSON that a command printed.
func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}

// A background is a command that goes on while the test does something to its surroundings.
type background struct {
	out string
	err error
	end chan struct{}
}

func start(name string, args ...string) *background {
	b := &background{end: make(chan struct{})}
	go func() {
		defer close(b.end)
		b.out, b.err = command(name, args...)
	}()
	return b
}

// report waits for the end and gives what testapp call counted.
func (b *background) report(t *testing.T) report {
	t.Helper()
	<-b.end
	if b.out == "" {
		t.Fatal(b.err)
	}
	return decode[report](t, b.out)
}

// A table is what a test shows of its cases.
type table struct {
	title string
	rows  [][3]string
}

// row runs one case; its function gives what came out, for the last column.
func (tab *table) row(t *testing.T, name string, f func(t *testing.T) string) {
	t.Helper()
	came := "did not come out"
	ok := t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) { came = f(t) })
	result := "ok"
	if !ok {
		result = "FAILED"
	}
	tab.rows = append(tab.rows, [3]string{result, name, came})
}

func (tab *table) print() {
	wide := 0
	for _, r := range tab.rows {
		wide = max(wide, len(r[1]))
	}
	fmt.Printf("\n%s\n\n", tab.title)
	for _, r := range tab.rows {
		fmt.Printf("  %-6s  %-*s  %s\n", r[0], wide, r[1], r[2])
	}
	fmt.Println()
}

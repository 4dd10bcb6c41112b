package main

import (
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	dir := testprog.Dir(t)
	ca := newCA(t, testca.Options{})
	sub := testca.MustIntermediate(t, ca, testca.Options{})
	caFile := write(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	past := func(d time.Duration) time.Time { return time.Now().Add(-d) }
	const day = 24 * time.Hour
	good := testca.Leaf{Hosts: []string{"a.test"}}
	goodLeaf := issue(t, ca, good)
	crl := func(o testca.CRLOptions, serials ...*big.Int) string {
		return write(t, filepath.Join(dir, "crl"), testca.MustCRL(t, ca, serials, o))
	}
	for _, tt := range []struct {
		name string
		pem  []byte
		args func() []string
		code int
		want []string
	}{
		{"good", goodLeaf.PEM(), nil, 0, []string{"machine   a.test\n", "would accept this machine as a.test", "more days"}},
		{"with an intermediate", issue(t, sub, good).PEM(), nil, 0, []string{"would accept"}},
		{"good for its name", goodLeaf.PEM(), func() []string { return []string{"--ca", "test=" + caFile} }, 0, []string{"would accept"}},
		{"ends soon", issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}, NotBefore: past(89 * day), NotAfter: time.Now().Add(day)}).PEM(), nil, 0, []string{"warning", "ends in 23 hours", "cure: renew it", "would accept"}},
		{"expired", issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}, NotBefore: past(2 * day), NotAfter: past(day)}).PEM(), nil, 1, []string{"fault", "has expired", "cure: renew", "(over)", "would refuse"}},
		{"not yet valid", issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}, NotBefore: past(-day), NotAfter: past(-2 * day)}).PEM(), nil, 1, []string{"fault", "valid only from", "clock"}},
		{"unknown CA", issue(t, newCA(t, testca.Options{}), good).PEM(), nil, 1, []string{"fault", "cure: add the intermediate", "(--ca)"}},
		{"CA for other names", goodLeaf.PEM(), func() []string { return []string{"--ca", "example.com=" + caFile} }, 1, []string{"fault", "cure:", "(--ca)"}},
		{"no digitalSignature", issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}, NoKeyUsage: true}).PEM(), nil, 1, []string{"fault", "digitalSignature"}},
		{"a purpose is missing", goodLeaf.PEM(), func() []string { return []string{"--require-eku", "1.3.6.1.4.1.32473.1.1"} }, 1, []string{"fault", "1.3.6.1.4.1.32473.1.1", "(--require-eku)"}},
		{"revoked", goodLeaf.PEM(), func() []string { return []string{"--crl", crl(testca.CRLOptions{}, goodLeaf.Cert.SerialNumber)} }, 1, []string{"fault", "revoked", "new key"}},
		{"stale list", goodLeaf.PEM(), func() []string {
			return []string{"--crl", crl(testca.CRLOptions{ThisUpdate: past(2 * day), NextUpdate: past(day)})}
		}, 1, []string{"fault", "revocation list", "fetch a new", "(--crl-stale-ok)"}},
		{"stale list allowed", goodLeaf.PEM(), func() []string {
			return []string{"--crl-stale-ok", "--crl", crl(testca.CRLOptions{ThisUpdate: past(2 * day), NextUpdate: past(day)})}
		}, 0, []string{"warning", "revocation list", "would accept"}},
		{"wildcard", issue(t, ca, testca.Leaf{Hosts: []string{"*.test"}}).PEM(), nil, 1, []string{"wildcard"}},
		{"another name wanted", goodLeaf.PEM(), func() []string { return []string{"--machine-name", "b.test"} }, 1, []string{"b.test", "a.test"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := []string{"check", "--credentials", write(t, filepath.Join(dir, "a.pem"), tt.pem)}
			var more []string
			if tt.args != nil {
				more = tt.args()
			}
			if len(more) == 0 || more[0] != "--ca" {
				args = append(args, "--ca", caFile)
			}
			code, stdout, stderr := altsd(t, append(args, more...)...)
			if code != tt.code {
				t.Errorf("exit status %d", code)
			}
			for _, want := range tt.want {
				if !strings.Contains(stdout+stderr, want) {
					t.Errorf("no %q", want)
				}
			}
			if t.Failed() {
				t.Logf("%s%s", stdout, stderr)
			}
		})
	}
}

func TestDevCA(t *testing.T) {
	dir := filepath.Join(testprog.Dir(t), "new", "ca")
	code, stdout, stderr := altsd(t, "dev-ca", dir, "A.test", "b.test", "--ip", "a.test=127.0.0.1")
	if code != 0 || stderr != "" {
		t.Fatalf("exit status %d: %s", code, stderr)
	}
	before := map[string]string{}
	for name, mode := range map[string]os.FileMode{"ca.pem": 0o644, "a.test.pem": 0o600, "b.test.pem": 0o600} {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v", name, info.Mode(), err)
		}
		if !strings.Contains(stdout, path+"\n") {
			t.Errorf("%s is not named in %q", path, stdout)
		}
		data, _ := os.ReadFile(path)
		before[path] = string(data)
	}
	if files, _ := os.ReadDir(dir); len(files) != len(before) {
		t.Errorf("files: %v", files)
	}
	if strings.Contains(before[filepath.Join(dir, "ca.pem")], "PRIVATE") {
		t.Error("the CA's key is on disk")
	}
	// Nothing is overwritten, and nothing is written beside it.
	code, _, stderr = altsd(t, "dev-ca", dir, "c.test", "b.test")
	if code != 1 || !strings.Contains(stderr, "already") {
		t.Errorf("again: exit status %d: %s", code, stderr)
	}
	if _, err := os.Stat(filepath.Join(dir, "c.test.pem")); err == nil {
		t.Error("half a set was written")
	}
	for path, want := range before {
		if got, _ := os.ReadFile(path); string(got) != want {
			t.Errorf("%s was changed", path)
		}
	}
	// What it made serves.
	var p [2]*process
	for i, name := range []string{"a.test", "b.test"} {
		credentials := []string{"--credentials", filepath.Join(dir, name+".pem"), "--ca", filepath.Join(dir, "ca.pem")}
		if code, stdout, stderr := altsd(t, append([]string{"check"}, credentials...)...); code != 0 {
			t.Errorf("check: exit status %d: %s%s", code, stdout, stderr)
		}
		p[i] = start(t, credentials...)
	}
	serverIs, clientIs, err := talk(t, p[0].socket, p[1].socket)
	if err != nil || serverIs != me(t)+"@b.test" || clientIs != me(t)+"@a.test" {
		t.Errorf("%s %s %v", serverIs, clientIs, err)
	}
}

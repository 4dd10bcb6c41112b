package main

import (
	"crypto/x509"
	"encoding/asn1"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/purpose"
	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// Where certificates of a CA speak for machines whatever they are for, check, status and the log say so, once each, and what to do;
// by the name of the purpose it is required, and the machines that have it talk.
func TestPurposeWarnings(t *testing.T) {
	dir := testprog.Dir(t)
	ca := newCA(t, testca.Options{})
	caFile := write(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	web := write(t, filepath.Join(dir, "web.pem"), issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM())
	machine := write(t, filepath.Join(dir, "machine.pem"), issue(t, ca, testca.Leaf{Hosts: []string{"a.test"},
		EKUs: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, UnknownEKUs: []asn1.ObjectIdentifier{purpose.OID()}}).PEM())
	const warned, cure = "no purpose is required of peers' certificates", "(--require-eku shared-altsd)"
	for name, tc := range map[string]struct {
		args    []string
		warned  bool
		has     string // of the cure
		serves  bool
		ownFits bool
	}{
		"a web server's":        {args: []string{"--credentials", web, "--ca", caFile}, warned: true, has: "have the CA name the purpose", serves: true, ownFits: true},
		"a machine's":           {args: []string{"--credentials", machine, "--ca", caFile}, warned: true, has: "names the purpose shared-altsd already", serves: true, ownFits: true},
		"the purpose is wanted": {args: []string{"--credentials", machine, "--ca", caFile, "--require-eku", "Shared-altsd"}, serves: true, ownFits: true},
		"and not there":         {args: []string{"--credentials", web, "--ca", caFile, "--require-eku", purpose.Dotted}, has: "shared-altsd (" + purpose.Dotted + ")"},
		"serverAuth is wanted":  {args: []string{"--credentials", machine, "--ca", caFile, "--require-eku", "1.3.6.1.5.5.7.3.1"}, warned: true, has: "already", ownFits: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			look := func(where, text string) {
				t.Helper()
				times := 0
				if tc.warned {
					times = 1
				}
				if strings.Count(text, warned) != times || strings.Count(text, cure) != times {
					t.Errorf("%s warns %d times, want %d:\n%s", where, strings.Count(text, warned), times, text)
				}
				if !strings.Contains(text, tc.has) {
					t.Errorf("%s has no %q:\n%s", where, tc.has, text)
				}
			}
			code, out, stderr := altsd(t, append([]string{"check"}, tc.args...)...)
			look("check", out+stderr)
			if (code == 0) != tc.ownFits {
				t.Errorf("check: exit status %d", code)
			}
			if !tc.serves {
				return
			}
			p := start(t, tc.args...)
			code, out, _ = altsd(t, "status", "--socket", p.socket)
			look("status", out)
			if code != 0 {
				t.Errorf("status: exit status %d", code)
			}
			if client, server, err := talk(t, p.socket, p.socket); err != nil {
				t.Errorf("%v %v %v", client, server, err)
			}
			p.signal(syscall.SIGHUP) // which does not say it again
			p.log.waitAfter(t, 0, "msg=reloaded")
			look("the log", p.log.String())
		})
	}
}

package main

import (
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A list that fetch-crl brings, as an account that the daemon does not trust, revokes a peer by itself.
func TestFetchedListRevokes(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can fetch as another account")
	}
	dir := testprog.Dir(t)
	into := filepath.Join(dir, "lists")
	if err := os.Mkdir(into, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(into, 1, 1); err != nil {
		t.Fatal(err)
	}
	ca := newCA(t, testca.Options{})
	peer := issue(t, ca, testca.Leaf{Hosts: []string{"b.test"}})
	now := time.Now()
	url, next := listServer(t, testca.MustCRL(t, ca, nil, testca.CRLOptions{Number: big.NewInt(1)}))
	caFile := write(t, filepath.Join(dir, "ca.pem"), ca.PEM())
	if err := os.Chmod(caFile, 0o644); err != nil {
		t.Fatal(err)
	}
	fetch := func() {
		t.Helper()
		cmd := exec.Command(program(t), "fetch-crl", "--ca", caFile, "--url", url, "--into", into)
		cmd.Dir, cmd.SysProcAttr = "/", &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 1, Gid: 1}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	fetch()
	a := start(t, "--credentials", write(t, filepath.Join(dir, "a.pem"), issue(t, ca, testca.Leaf{Hosts: []string{"a.test"}}).PEM()),
		"--ca", caFile, "--crl", into+"/")
	b := start(t, "--credentials", write(t, filepath.Join(dir, "b.pem"), peer.PEM()), "--ca", caFile)
	if _, _, err := talk(t, b.socket, a.socket); err != nil {
		t.Fatal(err)
	}
	next(testca.MustCRL(t, ca, []*big.Int{peer.Cert.SerialNumber}, testca.CRLOptions{Number: big.NewInt(2), ThisUpdate: now}))
	fetch()
	for deadline := now.Add(testprog.Patience); ; time.Sleep(20 * time.Millisecond) {
		_, _, err := talk(t, b.socket, a.socket)
		if err != nil && strings.Contains(err.Error(), "certificate_revoked") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the peer is not refused: %v", err)
		}
	}
}

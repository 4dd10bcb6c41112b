package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testca"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// A second daemon on the same socket ends at once with one line, and the first one does not notice. Removal at the
// end, and a start over what a killed one left.
func TestSecondDaemon(t *testing.T) {
	dir := testprog.Dir(t)
	ca := newCA(t, testca.Options{})
	flags := []string{"--credentials", write(t, filepath.Join(dir, "a.pem"), issue(t, ca,
		testca.Leaf{Hosts: []string{"a.test"}}).PEM()),
		"--ca", write(t, filepath.Join(dir, "ca.pem"), ca.PEM())}
	first := start(t, flags...)
	code, _, stderr := altsd(t, append([]string{"serve", "--socket", first.socket}, flags...)...)
	if code != 1 || !strings.Contains(stderr, "another shared-altsd serves "+first.socket) {
		t.Errorf("the second: exit status %d, %q", code, stderr)
	}
	if _, _, err := talk(t, first.socket, first.socket); err != nil {
		t.Errorf("the first suffered: %v", err)
	}
	first.signal(syscall.SIGKILL)
	first.wait()
	if _, err := os.Lstat(first.socket); err != nil {
		t.Fatalf("a killed daemon leaves its socket: %v", err)
	}
	again := start(t, append(flags, "--socket", first.socket)...)
	if _, _, err := talk(t, first.socket, first.socket); err != nil {
		t.Errorf("over what a killed daemon left: %v", err)
	}
	if code := again.stop(); code != 0 {
		t.Errorf("exit status %d:\n%s", code, again.log)
	}
	for _, path := range []string{first.socket, again.socket} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there: %v", path, err)
		}
	}
}

// A socket that is limited to uids refuses the others, who learn why.
func TestSocketUIDs(t *testing.T) {
	dir := testprog.Dir(t)
	ca := newCA(t, testca.Options{})
	uid := os.Geteuid()
	p := start(t, "--credentials", write(t, filepath.Join(dir, "a.pem"), issue(t, ca,
		testca.Leaf{Hosts: []string{"a.test"}}).PEM()),
		"--ca", write(t, filepath.Join(dir, "ca.pem"), ca.PEM()),
		"--socket", fmt.Sprintf("%s/mine,uids=%d-%d", dir, uid, uid+1), "--socket", fmt.Sprintf("%s/theirs,uids=%d", dir,
			uid+1))
	if _, _, err := talk(t, filepath.Join(dir, "mine"), p.socket); err != nil {
		t.Errorf("the socket for this uid: %v", err)
	}
	if _, _, err := talk(t, filepath.Join(dir, "theirs"), p.socket); err == nil || !strings.Contains(err.Error(), "uid") {
		t.Errorf("the socket for another uid: %v", err)
	}
}

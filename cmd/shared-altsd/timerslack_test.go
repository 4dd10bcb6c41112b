package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The daemon has the slack in every thread, however it was started, and is still what was started.
func TestTimerSlack(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: to read the timer slack of another process")
	}
	p := start(t, single(t)...)
	proc := fmt.Sprintf("/proc/%d/", p.Cmd.Process.Pid)
	tasks, err := filepath.Glob(proc + "task/*")
	if err != nil || len(tasks) < 2 {
		t.Fatalf("threads %v, %v", tasks, err)
	}
	for _, task := range tasks {
		b, err := os.ReadFile("/proc/" + filepath.Base(task) + "/timerslack_ns")
		if err == nil && strings.TrimSpace(string(b)) != "5000000" {
			t.Errorf("a thread has %s ns", b)
		}
		if err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	}
	cmdline, err := os.ReadFile(proc + "cmdline")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(cmdline), strings.Join(p.Cmd.Args, "\x00")+"\x00"; got != want {
		t.Errorf("its command line is %q, want %q", got, want)
	}
	if got := p.stop(); got != 0 {
		t.Errorf("exit status %d", got)
	}
}

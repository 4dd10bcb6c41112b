package main

import (
	"bytes"
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// A host is what the figures depend on, besides the code.
type host struct {
	CPU            string
	CPUs           int
	Kernel, Go     string
	Commit, Daemon string // of this program and of the daemon's, as far as they say
}

func (h host) String() string {
	s := fmt.Sprintf("%s, %d processors, Linux %s, %s, commit %s", h.CPU, h.CPUs, h.Kernel, h.Go, h.Commit)
	if h.Daemon != h.Commit {
		s += ", daemon " + h.Daemon
	}
	return s
}

func thisHost(daemon string) host {
	h := host{CPU: "unknown processor", CPUs: runtime.NumCPU(), Go: runtime.Version(), Commit: "unknown", Daemon: "unknown"}
	if info, ok := debug.ReadBuildInfo(); ok {
		h.Commit = commit(info)
	}
	if info, err := buildinfo.ReadFile(daemon); err == nil {
		h.Daemon = commit(info)
	}
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, rest, ok := bytes.Cut(b, []byte("model name")); ok {
			line, _, _ := bytes.Cut(rest, []byte("\n"))
			h.CPU = string(bytes.Trim(line, "\t :"))
		}
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	return h
}

// commit returns what a program was built from.
func commit(info *debug.BuildInfo) string {
	name, changed := "unknown", ""
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			name = s.Value[:min(12, len(s.Value))]
		case s.Key == "vcs.modified" && s.Value == "true":
			changed = ", changed"
		}
	}
	return name + changed
}

// busy returns the processor time of everything on the machine, and what the hypervisor gave to others of that which it
// wanted, since the start: in ticks of 10 ms, of which only sums say something.
func busy() (all, stolen time.Duration, err error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, 0, err
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	f := bytes.Fields(line)
	if len(f) < 9 { // cpu user nice system idle iowait irq softirq steal
		return 0, 0, errors.New("/proc/stat does not say what the processors did")
	}
	const tick = 10 * time.Millisecond
	for i, field := range f[1:9] {
		n, err := strconv.ParseInt(string(field), 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/stat: %w", err)
		}
		switch i {
		case 3, 4: // idle
		case 7:
			stolen = time.Duration(n) * tick
		default:
			all += time.Duration(n) * tick
		}
	}
	return all, stolen, nil
}

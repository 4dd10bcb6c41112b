package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
)

// perAccount is how many applications are one account's, below what the daemon lets an account have (--max-connections).
const perAccount = 1000

// applications has that many be connected to a daemon of its own, as programs with gRPC are that do nothing at the time.
func (f *fleet) applications(program string, n int) error {
	if os.Geteuid() != 0 {
		fmt.Printf("\nIdle applications were left out: one account may have %d, and only root can connect as several.\n", perAccount)
		return nil
	}
	uids, err := accounts((n + perAccount - 1) / perAccount)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("/tmp", "altsd-fleet-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "socket")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, "ca.pem"), f.ca.PEM(), 0o644),
		os.WriteFile(filepath.Join(dir, "machine.pem"), f.server.PEM(), 0o600)); err != nil {
		return err
	}
	runtime.LockOSThread() // the daemon gets its signal when the thread ends that started it
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithCancel(context.Background())
	var log bytes.Buffer
	daemon := exec.CommandContext(ctx, program, "serve", "--credentials", filepath.Join(dir, "machine.pem"), "--ca", filepath.Join(dir, "ca.pem"),
		"--socket", socket)
	daemon.Stderr = &log
	daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := daemon.Start(); err != nil {
		cancel()
		return err
	}
	defer func() {
		cancel()
		daemon.Wait()
	}()
	for began := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			break
		} else if time.Since(began) > 30*time.Second {
			return fmt.Errorf("the daemon does not listen: %w: %s", err, log.Bytes())
		}
	}
	before, err := holds(daemon.Process.Pid)
	if err != nil {
		return err
	}
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for i := range n {
		c, err := connect(socket, uids[i/perAccount])
		if err != nil {
			return fmt.Errorf("application %d: %w: %s", i, err, log.String())
		}
		conns = append(conns, c)
	}
	after, err := holds(daemon.Process.Pid)
	if err != nil {
		return err
	}
	began := time.Now()
	out, err := exec.Command(program, "whoami", "--socket", socket).CombinedOutput()
	if err != nil {
		return fmt.Errorf("one more: %w: %s", err, out)
	}
	fmt.Printf("\n%d idle applications of %d accounts on one daemon: memory %.1f MiB, without them %.1f MiB, %.1f KiB each; threads %d and %d, descriptors %d "+
		"and %d. One more had its answer in %v.\n", n, len(uids), after.mib(), before.mib(), 1024*(after.mib()-before.mib())/float64(n), after[1], before[1], after[2], before[2], time.Since(began).Round(time.Millisecond))
	return nil
}

// accounts returns uids of different accounts of this machine.
func accounts(n int) (uids []int, err error) {
	b, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil, err
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan() && len(uids) < n; {
		if fields := strings.Split(s.Text(), ":"); len(fields) > 2 {
			if uid, err := strconv.Atoi(fields[2]); err == nil {
				uids = append(uids, uid)
			}
		}
	}
	if len(uids) < n {
		return nil, fmt.Errorf("/etc/passwd has %d accounts, want %d", len(uids), n)
	}
	return uids, nil
}

// connect is one application: it says what HTTP/2 begins with, and hears the daemon's settings.
func connect(socket string, uid int) (net.Conn, error) {
	// The kernel tells the daemon the uid of the thread that connects. The thread is not used again, and ends.
	type result struct {
		c   net.Conn
		err error
	}
	made := make(chan result)
	go func() {
		runtime.LockOSThread()
		if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); e != 0 {
			made <- result{err: e}
			return
		}
		c, err := net.Dial("unix", socket)
		made <- result{c, err}
	}()
	r := <-made
	if r.err != nil {
		return nil, r.err
	}
	framer := http2.NewFramer(r.c, r.c)
	r.c.SetDeadline(time.Now().Add(30 * time.Second))
	_, err := r.c.Write([]byte(http2.ClientPreface))
	if err = errors.Join(err, framer.WriteSettings()); err == nil {
		if _, err = framer.ReadFrame(); err == nil {
			err = framer.WriteSettingsAck()
		}
	}
	if err != nil {
		r.c.Close()
		return nil, err
	}
	return r.c, nil
}

// held is what a process has: KiB of memory, threads, descriptors.
type held [3]int

func (h held) mib() float64 { return float64(h[0]) / 1024 }

func holds(pid int) (h held, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return h, err
	}
	for i, line := range []string{"VmRSS:", "Threads:"} {
		_, rest, _ := strings.Cut(string(b), "\n"+line)
		if fields := strings.Fields(rest); len(fields) > 0 {
			if h[i], err = strconv.Atoi(fields[0]); err != nil {
				return h, err
			}
		}
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	h[2] = len(fds)
	return h, err
}

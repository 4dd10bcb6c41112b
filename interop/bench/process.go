package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A process is a child of this one, and dies with it.
type process struct {
	name  string
	cmd   *exec.Cmd
	in    *os.File // nil if it takes no requests
	out   *os.File
	words *json.Decoder
	log   *os.File      // its standard error
	ended chan struct{} // closed at its end
}

// start runs a command as the account, if that is not nil. talks says whether it takes requests.
func start(ctx context.Context, account *syscall.Credential, name, log string, talks bool, argv ...string) (p *process, err error) {
	p = &process{name: name, cmd: exec.CommandContext(ctx, argv[0], argv[1:]...), ended: make(chan struct{})}
	p.cmd.Dir = "/"
	p.cmd.Env = append(os.Environ(), "SHARED_ALTSD_CONFIG=", "NOTIFY_SOCKET=", "LISTEN_FDS=", "WATCHDOG_USEC=")
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account, Pdeathsig: syscall.SIGKILL}
	if p.log, err = os.OpenFile(log, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600); err != nil {
		return nil, err
	}
	p.cmd.Stderr = p.log
	var childIn, childOut *os.File
	if talks {
		var err1, err2 error
		childIn, p.in, err1 = os.Pipe()
		p.out, childOut, err2 = os.Pipe()
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		p.cmd.Stdin, p.cmd.Stdout, p.words = childIn, childOut, json.NewDecoder(p.out)
	}
	err = p.cmd.Start()
	childIn.Close() // nil says so in an error that is of no interest
	childOut.Close()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// ready returns when the process listens.
func (p *process) ready(network, addr string) error {
	for began := time.Now(); time.Since(began) < patience; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial(network, addr); err == nil {
			return c.Close()
		}
		select {
		case <-p.ended:
			return p.fail(errors.New("it ended"))
		default:
		}
	}
	return p.fail(errors.New("it does not get ready"))
}

// end kills the process and waits for its end.
func (p *process) end() {
	p.cmd.Process.Kill()
	<-p.ended
	p.in.Close()
	p.out.Close()
	p.log.Close()
}

// fail returns err with the process's name and its last words.
func (p *process) fail(err error) error {
	b, _ := os.ReadFile(p.log.Name())
	if b = bytes.TrimSpace(b); len(b) > 0 {
		return fmt.Errorf("%s: %w; its log ends with:\n%s", p.name, err, b[max(0, len(b)-1000):])
	}
	return fmt.Errorf("%s: %w", p.name, err)
}

// hear returns the process's next word.
func (p *process) hear() (a answer, err error) {
	if err = p.words.Decode(&a); err == io.EOF {
		err = errors.New("it ended")
	} else if err == nil && a.Err != "" {
		err = errors.New(a.Err)
	}
	if err != nil {
		return a, p.fail(err)
	}
	return a, nil
}

// ask returns the answer to a request.
func (p *process) ask(r request) (a answer, err error) {
	if err := json.NewEncoder(p.in).Encode(r); err != nil {
		return a, p.fail(err)
	}
	return p.hear()
}

// processor returns the processor time of all threads that the process has, or had, by its own clock in the kernel:
// exact to the nanosecond, where the ticks of /proc/PID/stat are 10 ms. Children are not in it.
func (p *process) processor() (time.Duration, error) {
	const sched = 2 // CPUCLOCK_SCHED of linux/posix-timers_types.h: what the scheduler has counted
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|sched), &t); err != nil {
		return 0, p.fail(fmt.Errorf("cannot read its processor time: %w", err))
	}
	return time.Duration(t.Nano()), nil
}

// memory returns a line of the process's status, such as VmRSS, in KiB.
func (p *process) memory(line string) (kib int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, p.fail(err)
	}
	_, rest, _ := bytes.Cut(b, []byte("\n"+line+":"))
	if f := bytes.Fields(rest); len(f) > 0 {
		if kib, err = strconv.Atoi(string(f[0])); err == nil {
			return kib, nil
		}
	}
	return 0, p.fail(fmt.Errorf("its status has no number for %s", line))
}

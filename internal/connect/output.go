package connect

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/forward"
)

// A terminus is standard input and output as one connection, of which it is seen as well when nobody reads the output any
// more: else that would show with the next byte alone.
type terminus struct {
	*forward.Stdio
	in, out int
	ended   [2]int // a pipe that ends at CloseWrite, and with it the watch
	watch   sync.WaitGroup
	unwatch func()

	mu      sync.Mutex
	over    bool // the peer has ended
	reading bool
	silent  *time.Timer // ends silence, while the peer has ended and a read waits
}

// silence is how long standard input may give nothing, nor end, once the peer has ended: rsync waits for the end of connect
// before it closes what connect reads from, as it does with ssh.
const silence = 2 * time.Second

func newTerminus(in, out *os.File) (*terminus, error) {
	t := &terminus{}
	var err error
	if t.out, err = number(out); err != nil {
		return nil, err
	}
	if t.in, err = number(in); err != nil {
		return nil, err
	}
	if t.Stdio, err = forward.NewStdio(in, out); err != nil {
		return nil, err
	}
	t.afterSilence(func() {})
	t.unwatch = sync.OnceFunc(func() { unix.Close(t.ended[1]) })
	return t, unix.Pipe2(t.ended[:], unix.O_CLOEXEC)
}

// Read reads from the input.
func (t *terminus) Read(b []byte) (int, error) {
	t.wait(true)
	defer t.wait(false)
	return t.Stdio.Read(b)
}

// wait notes whether a read waits.
func (t *terminus) wait(reading bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.reading = reading; t.over && reading {
		t.silent.Reset(silence)
	} else {
		t.silent.Stop()
	}
}

// CloseWrite ends the output, since the peer has ended.
func (t *terminus) CloseWrite() error {
	t.mu.Lock()
	if t.over = true; t.reading {
		t.silent.Reset(silence)
	}
	t.mu.Unlock()
	t.unwatch()
	t.watch.Wait() // a poll under way would keep the file open
	return t.Stdio.CloseWrite()
}

// Close closes both.
func (t *terminus) Close() error {
	t.unwatch() // before a poll finds the descriptor closed
	return t.Stdio.Close()
}

var errNobodyReads = errors.New("standard output was closed: nobody reads it any more")

// afterSilence has done called once the peer has ended and the input stays silent. It is to be called before all else.
func (t *terminus) afterSilence(done func()) {
	t.silent = time.AfterFunc(silence, done)
	t.silent.Stop()
}

// watchOutput calls gone if nobody can read the output any more before it has ended. It never does for a socket that is
// the input as well, of which the input's end tells, after what is still to be read from it.
func (t *terminus) watchOutput(gone func(error)) {
	if oneSocket(t.in, t.out) {
		return
	}
	t.watch.Go(func() {
		for {
			fds := []unix.PollFd{{Fd: int32(t.out)}, {Fd: int32(t.ended[0])}} // errors and hang-ups are told unasked
			_, err := unix.Poll(fds, -1)
			switch {
			case fds[1].Revents != 0 || err != nil && err != unix.EINTR:
				return
			case fds[0].Revents != 0:
				gone(errNobodyReads)
				return
			}
		}
	})
}

// number returns a file's descriptor, and leaves its mode alone, which others may share.
func number(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	err = raw.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}

// oneSocket reports whether input and output are the two directions of one socket.
func oneSocket(in, out int) bool {
	var a, b unix.Stat_t
	return unix.Fstat(in, &a) == nil && unix.Fstat(out, &b) == nil && a.Mode&unix.S_IFMT == unix.S_IFSOCK && a.Dev == b.Dev &&
		a.Ino == b.Ino
}

package systemd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// journalSocket is where the journal takes entries with fields (systemd's JOURNAL_NATIVE_PROTOCOL). Tests have their own.
var journalSocket = "/run/systemd/journal/socket"

// Bounds of an entry, which is one datagram: below what the kernel gives a socket by default, 208 KiB.
const (
	maxFields = 48
	maxValue  = 2 << 10  // bytes of a field
	maxText   = 32 << 10 // of the line itself
)

// Bounds of what waits while the journal takes nothing.
const (
	maxWaiting      = 2048
	maxWaitingBytes = 4 << 20
	again           = 20 * time.Millisecond
	patience        = time.Second // at the end of the program
)

// An entry is a line, and as fields what it says.
type entry struct {
	level  slog.Level
	line   []byte
	fields []byte // as the journal takes them
	n      int
}

// newEntry copies line.
func newEntry(level slog.Level, line []byte) *entry {
	e := &entry{level: level, line: append([]byte(nil), line[:min(len(line), maxText)]...)}
	e.field("MESSAGE", e.line)
	e.field("PRIORITY", []byte{priority(level)})
	e.field("SYSLOG_FACILITY", []byte("3")) // daemon, as the journal has of standard error
	e.field("SYSLOG_IDENTIFIER", []byte(filepath.Base(os.Args[0])))
	return e
}

// field adds one in the form that has the value's length, so that no byte of a value ends it.
func (e *entry) field(name string, value []byte) {
	if e.n == maxFields {
		return
	}
	e.n++
	e.fields = append(append(e.fields, name...), '\n')
	e.fields = binary.LittleEndian.AppendUint64(e.fields, uint64(len(value)))
	e.fields = append(append(e.fields, value...), '\n')
}

// text adds a field of what a terminal shows as it is: all else stands there as Go writes it, \n or \x1b. An empty one is
// left out.
func (e *entry) text(name, value string) {
	if value = bounded(visible(bounded(value))); value != "" {
		e.field(name, []byte(value))
	}
}

func bounded(value string) string {
	const more = "..."
	if len(value) <= maxValue {
		return value
	}
	return strings.ToValidUTF8(value[:maxValue-len(more)], "") + more
}

func visible(s string) string {
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return s
	}
	quoted := strconv.Quote(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}

// attr adds the field of a key, one for each value of a list.
func (e *entry) attr(within string, a slog.Attr) {
	switch v := a.Value.Resolve(); {
	case v.Kind() == slog.KindGroup:
		for _, of := range v.Group() {
			e.attr(within+a.Key+"_", of)
		}
	default:
		if list, ok := v.Any().([]string); ok {
			for _, one := range list {
				e.text(Field(within+a.Key), one)
			}
			return
		}
		e.text(Field(within+a.Key), v.String())
	}
}

// Field returns the journal's field of a key of the log: ALTSD_ and the key in capitals. The ID of a handshake, which the
// daemon's lines have as id and those of forwards as handshake, has one field.
func Field(key string) string {
	if key == "id" {
		key = "handshake"
	}
	const maxName = 64 // the journal drops an entry with a longer one
	name := "ALTSD_" + strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z':
			return r - ('a' - 'A')
		case 'A' <= r && r <= 'Z', '0' <= r && r <= '9':
			return r
		}
		return '_'
	}, key)
	return name[:min(len(name), maxName)]
}

// A native brings entries to the journal, and makes nobody wait for it: what it does not take at once waits, so much of it,
// and what comes then is lost and counted.
type native struct {
	stderr *os.File
	fd     int // of a socket, -1 for none
	to     unix.Sockaddr

	mu      sync.Mutex
	waiting []*entry
	bytes   int // of those
	lost    int
}

func newNative(stderr *os.File) *native {
	n := &native{stderr: stderr, to: &unix.SockaddrUnix{Name: journalSocket}}
	var err error
	if n.fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
		n.fd = -1
		return n
	}
	unix.SetsockoptInt(n.fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<20) // as much as there is
	unix.SetsockoptTimeval(n.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &unix.Timeval{Sec: 1})
	return n
}

// write brings an entry to the journal, after those that wait.
func (n *native) write(e *entry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.waiting) == 0 && n.send(e, unix.MSG_DONTWAIT) {
		return
	}
	if len(n.waiting) >= maxWaiting || n.bytes+len(e.fields) > maxWaitingBytes {
		n.lost++
		return
	}
	n.waiting = append(n.waiting, e)
	n.bytes += len(e.fields)
	if len(n.waiting) == 1 {
		go n.drain()
	}
}

// drain brings what waits, and last how much was lost. From taking one out until it is known whether more wait, n.mu is held: there is
// one drain, as long as anything waits.
func (n *native) drain() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for {
		if len(n.waiting) == 0 && n.lost > 0 {
			e := lostEntry(n.lost)
			n.waiting, n.bytes, n.lost = []*entry{e}, len(e.fields), 0
		}
		if len(n.waiting) == 0 {
			return
		}
		first := n.waiting[0]
		n.mu.Unlock()
		for !n.send(first, 0) {
			time.Sleep(again)
		}
		n.mu.Lock()
		n.bytes -= len(first.fields)
		n.waiting[0] = nil
		n.waiting = n.waiting[1:]
	}
}

// lostEntry says how many lines were lost.
func lostEntry(lost int) *entry {
	const what = "lines of the log are lost: the journal did not take them in time"
	e := newEntry(slog.LevelWarn, fmt.Appendf(nil, "time=%s level=WARN msg=%q lost=%d", time.Now().Format(time.RFC3339Nano), what, lost))
	e.text("ALTSD_EVENT", what)
	e.text(Field("lost"), strconv.Itoa(lost))
	return e
}

// send reports whether the journal has taken an entry, or standard error has where there is no journal to be reached: it is
// starting again, or not to be seen from here. It waits a second at most, and not at all with MSG_DONTWAIT. It is called with
// n.mu held, or by drain, of which there is one.
func (n *native) send(e *entry, flags int) bool {
	err := unix.EBADF
	if n.fd >= 0 {
		err, _ = errors.AsType[unix.Errno](unix.Sendto(n.fd, e.fields, flags|unix.MSG_NOSIGNAL, n.to))
	}
	switch err {
	case 0:
		return true
	case unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM, unix.EINTR:
		return false
	}
	// What can be written to now takes a line without waiting: it is the least part of a socket's buffer.
	fd := int(n.stderr.Fd())
	if k, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 0); err != nil || k == 0 {
		return false
	}
	unix.Write(fd, append(append([]byte(prefix(e.level)), e.line...), '\n'))
	return true
}

// flush waits for what waits, for a while.
func (n *native) flush() {
	for until := time.Now().Add(patience); time.Now().Before(until); time.Sleep(again / 4) {
		n.mu.Lock()
		left := len(n.waiting)
		n.mu.Unlock()
		if left == 0 {
			return
		}
	}
}

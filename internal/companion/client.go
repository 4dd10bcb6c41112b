package companion

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/safepath"
)

// A Client is the daemon's end. Its methods are safe for concurrent use.
type Client struct {
	// Window bounds the requests that are with the companion at a time, those that nobody waits for any more among them: what is
	// over it waits here, and costs nothing when it is given up. It is set before the first call.
	Window int

	path, protocol string
	unit           string // what cures name
	ctx            context.Context
	stop           context.CancelFunc

	stuck time.Duration

	mu   sync.Mutex
	made *attempt // the connection, or the attempt to make it; nil for none
	left int      // connections that were left and are not closed yet
}

const (
	// stuckAfter is how long nothing may come by a connection while something is waited for, until another one is made.
	stuckAfter = time.Minute
	maxLeft    = 4
)

// NewClient returns the Client of the companion at a socket, which speaks protocol, such as "shared-altsd resolve 1". It connects
// when it is asked.
func NewClient(path, protocol string) *Client {
	c := &Client{Window: 64, path: path, protocol: protocol, stuck: stuckAfter}
	name, _, _ := strings.Cut(strings.TrimPrefix(protocol, "shared-altsd "), " ")
	c.unit = "shared-altsd-" + name
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

// Close ends the connection, and all calls.
func (c *Client) Close() error {
	c.stop()
	return nil
}

// An AwayError says that a companion does not answer, and why.
type AwayError struct {
	unit string
	err  error
}

func (e *AwayError) Error() string {
	var untrusted *localsock.UntrustedError
	var hello *helloError
	if errors.As(e.err, &untrusted) || errors.As(e.err, &hello) { // which name their own cures
		return fmt.Sprintf("the companion %s is not believed: %v", e.unit, e.err)
	}
	if errors.Is(e.err, unix.EACCES) {
		return fmt.Sprintf("this account may not ask the companion %s: %v; run it as root or as the daemon's account", e.unit, e.err)
	}
	return fmt.Sprintf("the companion %s is away: %v; start it ('systemctl start %[1]s.socket'), or see why it fails "+
		"('systemctl status %[1]s.service')", e.unit, e.err)
}

func (e *AwayError) Unwrap() error { return e.err }

// errEnded is the error of a connection that the companion has ended.
var errEnded = errors.New("it has closed the connection")

// Call has the companion answer a request. A connection that ends meanwhile is made again once, as when the companion is
// restarted. Errors are the context's, and *AwayError.
func (c *Client) Call(ctx context.Context, req []byte) ([]byte, error) {
	if len(req) > MaxBody {
		return nil, fmt.Errorf("a request of %d bytes, of at most %d", len(req), MaxBody)
	}
	for again := false; ; again = true {
		answer, err := c.try(ctx, req)
		switch {
		case err == nil:
			return answer, nil
		case c.ctx.Err() != nil:
			return nil, &AwayError{c.unit, net.ErrClosed}
		case ctx.Err() != nil:
			return nil, fmt.Errorf("the companion %s has not answered: %w", c.unit, ctx.Err())
		case again || !errors.Is(err, errEnded):
			return nil, &AwayError{c.unit, err}
		}
	}
}

// try is Call by one connection.
func (c *Client) try(ctx context.Context, req []byte) (answer []byte, err error) {
	l, err := c.link(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if ctx.Err() != nil {
			c.suspect(l)
		}
	}()
	select {
	case l.window <- struct{}{}:
	case <-l.ended:
		return nil, errEnded
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	id, wait := l.add()
	select {
	case l.out <- outgoing{ctx, id, appendFrame(nil, id, req)}:
	case <-l.ended:
		return nil, errEnded
	case <-ctx.Done():
		l.done(id)
		return nil, ctx.Err()
	}
	select {
	case answer := <-wait:
		return answer, nil
	case <-l.ended:
		return nil, errEnded
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// suspect leaves a connection by which nothing comes any more, so that the next call makes another one: whoever was at its other
// end may have hung, or hold the thread that reads by a socket that lingers (handed.TakeDescriptors). Then it is not closed for
// long, and of such there are few.
func (c *Client) suspect(l *link) {
	if l.silence() < c.stuck {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left == maxLeft || c.made == nil || !c.made.made(l) {
		return
	}
	c.made = nil
	c.left++
	l.end()
	go func() {
		l.conn.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.left--
	}()
}

// An attempt becomes a connection or an error.
type attempt struct {
	done chan struct{} // closed when link or err is there
	link *link
	err  error
}

// link returns the connection, made if there is none. Who waits for it waits for the one attempt of all; one that began before this
// call, and failed, says nothing of now, as when the companion was just started.
func (c *Client) link(ctx context.Context) (*link, error) {
	for again := false; ; again = true {
		c.mu.Lock()
		a := c.made
		own := a == nil || a.over()
		if own {
			a = &attempt{done: make(chan struct{})}
			c.made = a
			go func() {
				a.link, a.err = c.connect()
				close(a.done)
			}()
		}
		c.mu.Unlock()
		select {
		case <-a.done:
			if a.err == nil || own || again {
				return a.link, a.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// over reports whether the attempt has failed, or its connection has ended.
func (a *attempt) over() bool {
	select {
	case <-a.done:
	default:
		return false
	}
	if a.err != nil {
		return true
	}
	select {
	case <-a.link.ended:
		return true
	default:
		return false
	}
}

// made reports whether the attempt has become l.
func (a *attempt) made(l *link) bool {
	select {
	case <-a.done:
		return a.link == l
	default:
		return false
	}
}

// connect makes a connection to who may be believed.
func (c *Client) connect() (*link, error) {
	ctx, cancel := context.WithTimeout(c.ctx, pause)
	defer cancel()
	path, owner, err := place(c.path)
	if err != nil {
		return nil, err
	}
	conn, err := localsock.Dial(ctx, path, owner)
	if err != nil {
		return nil, err
	}
	if err := takeNone(conn); err != nil {
		conn.Close()
		return nil, err
	}
	r := bufio.NewReader(conn)
	if err := greet(conn, r, c.protocol); err != nil {
		conn.Close()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = fmt.Errorf("nobody has taken the connection within %v", pause)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
			err = fmt.Errorf("%w before it said a word: its --client does not name uid %d, or it fails", errEnded, os.Geteuid())
		}
		return nil, err
	}
	l := &link{conn: conn, out: make(chan outgoing), ended: make(chan struct{}), window: make(chan struct{}, c.Window),
		asked: map[uint32]chan<- []byte{}, heard: time.Now()}
	forget := context.AfterFunc(c.ctx, func() { conn.Close() })
	go func() {
		defer forget()
		l.read(r)
	}()
	go l.write()
	return l, nil
}

// place returns where the socket is, and the owner of its directory, who may serve it: root or this account, or, in a directory
// that nobody else may write, the companion's own account.
func place(path string) (real string, owner uint32, err error) {
	const what = "the companion's socket"
	if err := localsock.CheckPath(path); err != nil {
		return "", 0, err
	}
	dir := filepath.Dir(path)
	if real, _, err = safepath.Dir(dir, what); err == nil {
		return filepath.Join(real, filepath.Base(path)), 0, nil
	}
	above, _, otherwise := safepath.Dir(filepath.Dir(dir), what)
	real = filepath.Join(above, filepath.Base(dir))
	info, missing := os.Lstat(real)
	if otherwise != nil || missing != nil || others(above) || !info.IsDir() || info.Mode()&0o022 != 0 ||
		localsock.Overflow(safepath.Owner(info)) {
		return "", 0, err
	}
	return filepath.Join(real, filepath.Base(path)), safepath.Owner(info), nil
}

// others reports whether others may make files in a directory, be it sticky or not.
func others(dir string) bool {
	info, err := os.Lstat(dir)
	return err != nil || info.Mode()&0o022 != 0
}

// A link is one connection.
type link struct {
	conn   net.Conn
	out    chan outgoing
	ended  chan struct{} // closed when nothing more comes
	window chan struct{} // a place for each of asked

	once  sync.Once
	mu    sync.Mutex
	heard time.Time                // when an answer came last, or something was asked first since
	last  uint32                   // the id given last
	asked map[uint32]chan<- []byte // what has no answer yet, whether somebody waits for it or not
}

// outgoing is a frame on its way, for as long as somebody waits for its answer.
type outgoing struct {
	ctx   context.Context
	id    uint32
	frame []byte
}

// add returns the id of another call, which has a place, and where its answer comes.
func (l *link) add() (uint32, <-chan []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		l.last++
		if _, taken := l.asked[l.last]; l.last != helloID && !taken {
			break
		}
	}
	wait := make(chan []byte, 1)
	if len(l.asked) == 0 {
		l.heard = time.Now()
	}
	l.asked[l.last] = wait
	return l.last, wait
}

// done gives the place of a call back, and returns where its answer is to go: nil if nothing was asked by that id.
func (l *link) done(id uint32) chan<- []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	wait := l.asked[id]
	if wait != nil {
		delete(l.asked, id)
		<-l.window
	}
	return wait
}

// end lets nobody wait for anything any more.
func (l *link) end() { l.once.Do(func() { close(l.ended) }) }

// silence returns for how long something was asked and nothing has come.
func (l *link) silence() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.asked) == 0 {
		return 0
	}
	return time.Since(l.heard)
}

// read hands out the answers until the connection ends, or one comes to nothing that was asked.
func (l *link) read(r *bufio.Reader) {
	defer l.conn.Close()
	defer l.end()
	for {
		id, answer, err := readFrame(l.conn, r)
		if err != nil {
			return
		}
		wait := l.done(id)
		if wait == nil {
			return
		}
		l.mu.Lock()
		l.heard = time.Now()
		l.mu.Unlock()
		wait <- answer
	}
}

// write writes what is to go out, but for what nobody waits for any more. For a companion that does not read it waits.
func (l *link) write() {
	for {
		select {
		case o := <-l.out:
			if o.ctx.Err() != nil {
				l.done(o.id)
				continue
			}
			if _, err := l.conn.Write(o.frame); err != nil {
				l.conn.Close()
				return
			}
		case <-l.ended:
			return
		}
	}
}

package metrics

import (
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Bounds of the metrics' listener, at which nobody says who he is: what a few scrapers need.
const (
	maxConns    = 16                    // open at once
	acceptEach  = 10 * time.Millisecond // between two connections, after the first acceptFirst
	acceptFirst = 32                    // connections taken without a pause
	scrapeEach  = 20 * time.Millisecond // between two pages
)

// A boundListener has at most maxConns connections open. For one more it closes the one that has been without a request
// for longest, or if there is none the oldest, so that nobody keeps a scraper out by holding connections.
type boundListener struct {
	net.Listener
	credit int       // connections that may be taken without a pause
	last   time.Time // when one was taken

	mu   sync.Mutex
	open []*boundConn // the one that has had the state for longest first
}

type boundConn struct {
	net.Conn
	l      *boundListener
	active bool // a request is being answered
}

func (l *boundListener) Accept() (net.Conn, error) {
	raw, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.pause()
	c := &boundConn{Conn: raw, l: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= maxConns {
		i := max(0, slices.IndexFunc(l.open, func(c *boundConn) bool { return !c.active }))
		l.open[i].Conn.Close()
		l.open = slices.Delete(l.open, i, i+1)
	}
	l.open = append(l.open, c)
	return c, nil
}

// pause keeps whoever connects and connects from keeping the daemon's processor busy.
func (l *boundListener) pause() {
	now := time.Now()
	l.credit = min(acceptFirst, l.credit+int(now.Sub(l.last)/acceptEach))
	if l.credit <= 0 {
		time.Sleep(acceptEach)
		l.credit++
	}
	l.credit--
	l.last = time.Now()
}

// changed notes what http.Server says of a connection.
func changed(c net.Conn, state http.ConnState) {
	b, ok := c.(*boundConn)
	if !ok {
		return
	}
	b.l.mu.Lock()
	defer b.l.mu.Unlock()
	i := slices.Index(b.l.open, b)
	if i < 0 {
		return
	}
	switch state {
	case http.StateActive, http.StateIdle:
		b.active = state == http.StateActive
		b.l.open = append(slices.Delete(b.l.open, i, i+1), b)
	case http.StateClosed, http.StateHijacked:
		b.l.open = slices.Delete(b.l.open, i, i+1)
	}
}

// A pace lets one page at a time be written, and not the next for scrapeEach.
type pace chan struct{}

func (p pace) run(r *http.Request, do func()) {
	select {
	case p <- struct{}{}:
		do()
		time.AfterFunc(scrapeEach, func() { <-p })
	case <-r.Context().Done():
	}
}

package httpfwd

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// LocalConfig is of the side that has the callers, `connect --http` at a TCP port.
type LocalConfig struct {
	// Hosts are the names and addresses, without ports, by which a request may call this forward: none whose meaning the
	// network could change.
	Hosts []string
	// Log has why the peer was not reached, at most once a minute.
	Log *slog.Logger
	// Times is DefaultTimes if it is zero.
	Times Times
}

// A Local looks at each request of local callers before anything of it goes to the peer. The kernel has said that a caller
// has the right uid, but it may be a browser that somebody's page has led here: by a name that is made to mean this address
// (DNS rebinding), which its Host shows, or by a request across sites, which Origin and Sec-Fetch-Site show.
type Local struct {
	config LocalConfig
	server *http.Server
	queue  *queue
}

// NewLocal returns one that has to be shut down.
func NewLocal(c LocalConfig) *Local {
	if c.Times == (Times{}) {
		c.Times = DefaultTimes
	}
	l := &Local{config: c, queue: newQueue()}
	failures := seldom{log: c.Log, text: "the peer cannot be reached"}
	l.server = newHTTP(way{unfit: l.unfit, rewrite: func(*httputil.ProxyRequest) {}, failed: failures.add,
		away: "the peer does not answer; what connect says on standard error has the reason"}.handler(), c.Times, true)
	go l.server.Serve(l.queue)
	return l
}

// ServeConn serves one local connection until it ends, or ctx does, and closes it. dial makes a connection to the peer, for
// the first request that may pass, and again if that has ended.
func (l *Local) ServeConn(ctx context.Context, raw net.Conn, dial func(context.Context) (net.Conn, error)) Result {
	busy := new(atomic.Int32)
	c := newConn(raw, l.config.Times, busy)
	c.backend = newBackend(func(ctx context.Context) (net.Conn, error) {
		peer, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return newConn(peer, l.config.Times, busy), nil
	}, l.config.Times)
	defer c.backend.close()
	return l.queue.serve(ctx, c)
}

// Shutdown lets requests under way end, takes no others, and returns when there are none, or ctx ends.
func (l *Local) Shutdown(ctx context.Context) error {
	l.queue.Close()
	return l.server.Shutdown(ctx)
}

// Close ends all connections.
func (l *Local) Close() error { return l.server.Close() }

func (l *Local) unfit(r *http.Request) (status int, why string) {
	if err := CheckHost(r.Host, l.config.Hosts); err != "" {
		return http.StatusMisdirectedRequest, err
	}
	if acrossSites(r) {
		return http.StatusForbidden, "a page of another site asks for this, with the identity of who runs the browser"
	}
	return unfit(r)
}

// CheckHost returns why a request's Host is refused, "" if it is one of hosts, with or without a port: behind a port that is
// forwarded once more (ssh -L) the port is another one.
func CheckHost(host string, hosts []string) string {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	} else if strings.HasPrefix(name, "[") && strings.HasSuffix(name, "]") {
		name = name[1 : len(name)-1]
	}
	for _, h := range hosts {
		if name != "" && ascii.Lower(name) == ascii.Lower(h) {
			return ""
		}
	}
	return "the request's Host is none of this forward's (" + strings.Join(hosts, ", ") + "): a browser may have been led here " +
		"by a name of somebody else's"
}

// acrossSites reports whether a browser says that a page of another origin makes the request, other than by a link that its
// user follows. Programs other than browsers say nothing of the kind. A port is no other site to a browser, but another
// account's to us.
func acrossSites(r *http.Request) bool {
	if origins, ok := r.Header["Origin"]; ok {
		o, err := url.Parse(origins[0])
		if len(origins) > 1 || err != nil || !strings.EqualFold(o.Host, r.Host) {
			return true
		}
	}
	switch sites := r.Header["Sec-Fetch-Site"]; {
	case len(sites) == 0, len(sites) == 1 && (sites[0] == "same-origin" || sites[0] == "none"):
		return false
	}
	link := r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" &&
		r.Header.Get("Sec-Fetch-Dest") == "document"
	return !link
}

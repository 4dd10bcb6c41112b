package fetchcrl

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"
)

// Bounds on what a server says beside the list.
const (
	maxRedirects = 3
	maxHeaders   = 64 << 10
	maxValidator = 1 << 10
	maxURL       = 2 << 10
)

// A client asks for lists. Proxies of the environment are not used: what is judged is the address that is connected to.
type client struct {
	open, guarded *http.Client // any address; none of this machine or link
	maxSize       int
}

// An answer is a list with what tells it from others at its place.
type answer struct {
	body           []byte
	etag, modified string
	same           bool // as the one that was asked about
}

func newClient(issuers []*x509.Certificate, maxSize int) *client {
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	for _, ca := range issuers { // an own CA's server mostly has a certificate of its own
		roots.AddCert(ca)
	}
	with := func(control func(network, address string, c syscall.RawConn) error) *http.Client {
		dialer := &net.Dialer{Timeout: 20 * time.Second, Control: control}
		return &http.Client{
			Transport: &http.Transport{
				DialContext:            dialer.DialContext,
				TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
				TLSHandshakeTimeout:    20 * time.Second,
				DisableCompression:     true,
				DisableKeepAlives:      true,
				MaxResponseHeaderBytes: maxHeaders,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		}
	}
	return &client{open: with(nil), guarded: with(guard), maxSize: maxSize}
}

// guard refuses to connect to an address at which a certificate's URL has no business. It sees what the name resolved to, so
// that a name which resolves anew cannot get by.
func guard(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("the address %q cannot be judged", address)
	}
	if kind := forbidden(to.Addr()); kind != "" {
		return fmt.Errorf("the address %v is %s, where no certificate or redirect may send this program; if it is meant, give its "+
			"URL by --url", to.Addr(), kind)
	}
	return nil
}

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	broadcast   = netip.MustParseAddr("255.255.255.255")
	nat64       = netip.MustParsePrefix("64:ff9b::/96")
	metadata6   = netip.MustParseAddr("fd00:ec2::254")
)

// forbidden returns what an address is that guard refuses, "" for others. Private networks are where a CA of one's own is.
func forbidden(a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if nat64.Contains(a) {
		b := a.As16()
		a = netip.AddrFrom4([4]byte(b[12:]))
	}
	switch {
	case a.IsLoopback():
		return "loopback"
	case a.IsLinkLocalUnicast():
		return "link-local"
	case a.IsMulticast(), a == broadcast:
		return "multicast"
	case a.IsUnspecified(), thisNetwork.Contains(a):
		return "unspecified"
	case a == metadata6:
		return "a cloud's metadata service"
	}
	return ""
}

// checkURL returns what is wrong with a URL; admin says that it is the administrator's.
func checkURL(raw string, admin bool) error {
	u, err := url.Parse(raw)
	switch {
	case len(raw) > maxURL:
		return fmt.Errorf("the URL %.60q... has more than %d bytes", raw, maxURL)
	case err != nil:
		return fmt.Errorf("%q is not a URL: %w", raw, errors.Unwrap(err))
	case strings.EqualFold(u.Scheme, "ldap"), strings.EqualFold(u.Scheme, "ldaps"):
		return fmt.Errorf("%q: lists are not fetched by LDAP; name the CA's http URL by --url", raw)
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q is neither http nor https", raw)
	case u.Hostname() == "" || u.Opaque != "":
		return fmt.Errorf("%q names no host", raw)
	case u.User != nil:
		return errors.New("the URL has a user's name in it, and lists are fetched without one: leave it out")
	case admin:
		return nil
	}
	if a, err := netip.ParseAddr(u.Hostname()); err == nil && forbidden(a) != "" || strings.EqualFold(u.Hostname(), "localhost") {
		return fmt.Errorf("%q leads to this machine or link, where no certificate or redirect may send this program; if it is "+
			"meant, give it by --url", raw)
	}
	return nil
}

// get asks for a list; had is the one that was got before. The administrator's word is for his URL, and not for where its
// server sends us.
func (c *client) get(ctx context.Context, raw string, admin bool, had answer) (answer, error) {
	first, err := url.Parse(raw)
	if err != nil {
		return answer{}, err
	}
	at := first
	for redirects := 0; ; redirects++ {
		open := admin && at.Host == first.Host
		if err := checkURL(at.String(), open); err != nil {
			return answer{}, err
		}
		client := c.guarded
		if open {
			client = c.open
		}
		got, next, err := c.ask(ctx, client, at, had)
		if err != nil || next == "" {
			return got, plain(err)
		}
		to, err := at.Parse(next)
		switch {
		case err != nil:
			return answer{}, fmt.Errorf("redirected to what is no URL, %.60q", next)
		case redirects == maxRedirects:
			return answer{}, fmt.Errorf("redirected more than %d times; give the URL at the end by --url", maxRedirects)
		case at.Scheme == "https" && to.Scheme != "https":
			return answer{}, fmt.Errorf("redirected from https to %.60q; give the URL at the end by --url, if that is meant", to)
		}
		at = to
	}
}

// ask makes one request and returns what came, or where it was redirected.
func (c *client) ask(ctx context.Context, client *http.Client, at *url.URL, had answer) (got answer, next string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return got, "", err
	}
	req.Header.Set("User-Agent", "shared-altsd-fetch-crl")
	req.Header.Set("Accept-Encoding", "identity")
	asked := had.etag != "" || had.modified != ""
	if had.etag != "" {
		req.Header.Set("If-None-Match", had.etag)
	}
	if had.modified != "" {
		req.Header.Set("If-Modified-Since", had.modified)
	}
	resp, err := client.Do(req)
	if err != nil {
		return got, "", err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		if !asked {
			return got, "", errors.New("the server says that the list has not changed, and was not asked that; see to the server")
		}
		return answer{same: true}, "", nil
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect,
		http.StatusPermanentRedirect:
		if next := resp.Header.Get("Location"); next != "" {
			return got, next, nil
		}
		fallthrough
	default:
		return got, "", fmt.Errorf("the server answers %d %s; see to the server, or give the list's right URL by --url",
			resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	if e := resp.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return got, "", fmt.Errorf("the server sends the list encoded (%.20q), unasked; have it sent as it is", e)
	}
	if resp.ContentLength > int64(c.maxSize) {
		return got, "", c.tooLarge()
	}
	body := bytes.NewBuffer(make([]byte, 0, max(0, resp.ContentLength)+bytes.MinRead)) // without the garbage of one that grows
	if _, err = body.ReadFrom(io.LimitReader(resp.Body, int64(c.maxSize)+1)); err != nil {
		return got, "", err
	}
	got.body = body.Bytes()
	if len(got.body) > c.maxSize {
		return got, "", c.tooLarge()
	}
	got.etag, got.modified = validator(resp.Header.Get("ETag")), validator(resp.Header.Get("Last-Modified"))
	return got, "", nil
}

func (c *client) tooLarge() error {
	return fmt.Errorf("what the server sends has more than %d bytes: if that is the list, have the CA divide it, or raise --max-size",
		c.maxSize)
}

// validator returns a header by which a list is asked for again, "" for one that is too long or not printable.
func validator(v string) string {
	if len(v) > maxValidator || strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
		return ""
	}
	return v
}

// plain returns an error of the client without the URL, which the caller names, and with a cure.
func plain(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return errors.New("it took too long; see to the server and the way to it, or raise --timeout")
	}
	return fmt.Errorf("%w; see to the server and the way to it", err)
}

// Package fetchcrl brings revocation lists from where their CAs publish them into a directory, for a daemon that has no
// network. It holds no key, and nothing trusts what it brings: the daemon verifies each list again. What it can do by
// fault or malice is to bring none.
package fetchcrl

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/wholefile"
)

// A Config says which lists are brought where.
type Config struct {
	Issuers      []*x509.Certificate // whose lists count
	Certificates []*x509.Certificate // whose distribution points are places of lists, beside those of Issuers
	URLs         []string            // further places, by the administrator's word
	Dir          string
	Textfile     string        // of metrics, "" for none
	Machine      string        // whose metrics they are
	Timeout      time.Duration // of one place
	MaxSize      int           // of one list, bytes
	Jitter       time.Duration // at most so much later
}

// Bounds of one run: on its time, and on the places that certificates name, so that no CA's leave none for another's.
const (
	runTimeout = 15 * time.Minute
	maxSources = 64 // in all
	maxPoints  = 8  // of one certificate
	maxURLs    = 4  // of one distribution point
	maxLine    = 4 << 10
)

// Bounds of the lists of one CA together, and of all: the daemon reads 64 MiB of a directory.
const (
	maxListsOfCA = certbind.MaxListsOfCA / 2
	maxBytes     = 4 * certbind.MaxListSize
)

// wholeAfter is when a list is asked for that was there before, whatever the server says of changes: somebody on the way may
// once have given an old list with what tells the newest.
const wholeAfter = 24 * time.Hour

// A source is one list that is wanted, and the places at which it is, any of which will do.
type source struct {
	urls  []string
	admin bool // by --url
}

// A run is one pass over all sources.
type run struct {
	*Config
	store     *store
	client    *client
	state     state
	there     map[string]held // by file; nobody else writes there
	now       func() time.Time
	good, bad io.Writer // a line each
	failed    bool
}

// A held is a list that is in the directory: whose, by a key, and how large.
type held struct {
	ca   string
	size int
}

// Run brings each list once, and reports whether all that are wanted are there and in their time. It writes a line of each
// list to good, and one of each failure, with the cure, to bad.
func Run(ctx context.Context, c Config, good, bad io.Writer) (ok bool, err error) {
	return runAt(ctx, c, time.Now, good, bad)
}

func runAt(ctx context.Context, c Config, now func() time.Time, good, bad io.Writer) (ok bool, err error) {
	r := &run{Config: &c, now: now, good: good, bad: bad}
	sources := r.sources()
	if c.Jitter > 0 {
		select {
		case <-time.After(rand.N(c.Jitter)):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	ctx, cancel := context.WithTimeout(ctx, runTimeout)
	defer cancel()
	if r.store, err = openStore(c.Dir); err != nil {
		return false, err
	}
	defer r.store.close()
	r.client = newClient(c.Issuers, c.MaxSize)
	if err = r.look(); err != nil {
		return false, err
	}
	if r.state, err = r.store.readState(); err != nil {
		r.warn("%v: every list is fetched anew", err)
	}
	r.state.only(sources)
	for _, i := range rand.Perm(len(sources)) { // those that use up the time are not always before the same others
		r.bring(ctx, sources[i])
	}
	r.old(sources)
	err = errors.Join(r.store.writeState(r.state), r.writeTextfile(sources))
	if len(sources) == 0 {
		err = errors.Join(err, errors.New("no list is wanted: neither the CAs nor --certificates name a place of their lists that "+
			"can be used here; give --url"))
	}
	return !r.failed, err
}

func (r *run) say(format string, args ...any) {
	fmt.Fprintln(r.good, cli.OneLine(fmt.Sprintf(format, args...)))
}

// warn writes a line, which a server may have a part in: not as much of it as it likes.
func (r *run) warn(format string, args ...any) {
	line := cli.OneLine(fmt.Sprintf(format, args...))
	fmt.Fprintln(r.bad, line[:min(len(line), maxLine)])
}

// fail is warn of what makes the run one that failed.
func (r *run) fail(format string, args ...any) {
	r.failed = true
	r.warn(format, args...)
}

// sources returns the lists that are wanted, each once.
func (r *run) sources() (all []source) {
	seen, refused := make(map[string]bool), make(map[string]bool)
	for _, u := range r.URLs {
		if !seen[u] {
			seen[u], all = true, append(all, source{urls: []string{u}, admin: true})
		}
	}
	for _, cert := range slices.Concat(r.Certificates, r.Issuers) {
		pass := func(u string, why error) {
			if !refused[u] {
				r.warn("passed over, of the certificate %q: %v", cert.Subject, why)
			}
			refused[u] = true
		}
		points := certbind.ListPlaces(cert)
		for _, urls := range points[:min(len(points), maxPoints)] {
			urls = slices.DeleteFunc(urls, func(u string) bool {
				err := checkURL(u, false)
				if err != nil && !seen[u] {
					pass(u, err)
				}
				return err != nil && !seen[u]
			})
			urls = urls[:min(len(urls), maxURLs)]
			switch {
			case len(urls) == 0 || slices.ContainsFunc(urls, func(u string) bool { return seen[u] }):
			case len(all) >= maxSources:
				pass(urls[0], fmt.Errorf("%q: there are %d places already; give fewer certificates", urls[0], len(all)))
			default:
				all = append(all, source{urls: urls})
				for _, u := range urls {
					seen[u] = true
				}
			}
		}
	}
	return all
}

// bring fetches the list of one source. What is there stays if that fails.
func (r *run) bring(ctx context.Context, s source) {
	var failures []string
	for _, u := range s.urls {
		list, err := r.fetch(ctx, u, s.admin)
		if err == nil {
			r.state.came(s, r.now())
			r.say("list      %s: %v, next update %s", u, list.Mark, stamp(list.NextUpdate))
			return
		}
		failures = append(failures, fmt.Sprintf("%s: %v", u, err))
	}
	r.state.failed(s, r.now())
	why := strings.Join(failures, "; and ")
	for _, u := range s.urls {
		if list, _ := r.had(r.state.Places[u]); list != nil && list.Usable(r.now()) == nil {
			r.warn("not fetched %s; the list that is there stays, good until %s", why, stamp(list.NextUpdate))
			return
		}
	}
	r.fail("not fetched %s; and none is there that is good now", why)
}

// fetch brings the list of one URL, if there is a newer one, and returns the one that is there then.
func (r *run) fetch(ctx context.Context, u string, admin bool) (*certbind.List, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	before := r.state.Places[u]
	had, whole := r.had(before)
	ask := answer{}
	fresh := whole && had.Usable(r.now()) == nil && r.now().Sub(before.Sent) < wholeAfter
	if fresh { // else "not modified" would be of another list, or help nobody
		ask.etag, ask.modified = before.ETag, before.LastModified
	}
	got, err := r.client.get(ctx, u, admin, ask)
	if err != nil {
		return nil, err
	}
	if got.same {
		return had, nil
	}
	list, err := certbind.ReadList(got.body, r.Issuers)
	if err != nil {
		return nil, fmt.Errorf("not a list to be used: %w", err)
	}
	if err := list.Usable(r.now()); err != nil {
		return nil, fmt.Errorf("the list (%v) is not used: %w", list.Mark, err)
	}
	name := fileName(list)
	if err := r.room(name, list); err != nil {
		return nil, err
	}
	there, err := r.store.read(name, r.Issuers)
	if errors.As(err, new(unreadError)) {
		return nil, fmt.Errorf("whether the list (%v) is newer than the one that is there cannot be known: %w; let this account read it, "+
			"or remove it if it is no list", list.Mark, err)
	}
	if err == nil {
		switch {
		case there.Newer(list) && there.Usable(r.now()) != nil:
			return nil, fmt.Errorf("the list (%v) is older than the one that was brought before (%v), which is over; have the CA "+
				"make a new one", list.Mark, there.Mark)
		case there.Newer(list):
			return nil, fmt.Errorf("the list (%v) is older than the one that is there (%v): somebody on the way, or a copy of the "+
				"CA's that is behind, gave it", list.Mark, there.Mark)
		case !list.Newer(there) && !list.Same(there):
			return nil, fmt.Errorf("the list (%v) differs from the one that is there, which has the same number and time; have the "+
				"CA make a new one", list.Mark)
		case !list.Newer(there):
			before.is(name, there, got, r.now())
			return there, nil
		}
	}
	if err := r.store.write(name, list.DER); err != nil {
		return nil, fmt.Errorf("%w: make room in %s, and let this account write there", err, r.Dir)
	}
	r.there[name] = held{string(list.Mark.Key), len(list.DER)}
	before.is(name, list, got, r.now())
	return list, nil
}

// look notes which lists are there.
func (r *run) look() error {
	names, err := r.store.names()
	if err != nil {
		return fmt.Errorf("--into: %w: let this account read it", err)
	}
	r.there = make(map[string]held)
	for _, name := range names {
		if list, err := r.store.read(name, r.Issuers); err == nil {
			r.there[name] = held{string(list.Mark.Key), len(list.DER)}
		}
	}
	return nil
}

// room refuses a list that makes its CA's more than their share of what the daemon reads, or all of them more than that:
// another CA's would be the one that is left out.
func (r *run) room(name string, list *certbind.List) error {
	files, size, all := 1, len(list.DER), len(list.DER)
	for n, h := range r.there {
		if n == name {
			continue
		}
		all += h.size
		if h.ca == string(list.Mark.Key) {
			files, size = files+1, size+h.size
		}
	}
	const cure = "have the CA divide its list always in the same way, or remove from %s those that are used no more, and " +
		"'shared-altsd reload --forget-list FILE'"
	switch {
	case files > maxListsOfCA || size > certbind.MaxBytesOfCA:
		return fmt.Errorf("the list (%v) would make %d of its CA, %d bytes together, and there may be %d of %d: "+cure,
			list.Mark, files, size, maxListsOfCA, certbind.MaxBytesOfCA, r.Dir)
	case all > maxBytes:
		return fmt.Errorf("the list (%v) would make %d bytes of all lists, and there may be %d: "+cure, list.Mark, all, maxBytes, r.Dir)
	}
	return nil
}

// had returns the list that a place gave before, if it is there still; whole says that it is that very list.
func (r *run) had(p *place) (list *certbind.List, whole bool) {
	if !isListName(p.File) {
		return nil, false
	}
	list, err := r.store.read(p.File, r.Issuers)
	if err != nil {
		return nil, false
	}
	return list, digest(list.DER) == p.SHA256
}

// old fails the run for each list in the directory that is over, or none of a CA's that is trusted, and that no source brings.
func (r *run) old(sources []source) {
	brought := make(map[string]bool)
	for _, s := range sources {
		for _, u := range s.urls {
			brought[r.state.Places[u].File] = true
		}
	}
	names, err := r.store.names()
	if err != nil {
		r.fail("%v: let this account read it", err)
	}
	for _, name := range names {
		if brought[name] {
			continue
		}
		list, err := r.store.read(name, r.Issuers)
		if err == nil {
			err = list.Usable(r.now())
		}
		if err != nil {
			r.fail("%s in %s, which no place that is asked gives: %v; or remove the file, and 'shared-altsd reload "+
				"--forget-list CA' if its CA, or this part of its list, is used no more", name, r.Dir, err)
		}
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// CheckURL returns what is wrong with the value of --url.
func CheckURL(u string) error { return checkURL(u, true) }

// Extract writes the certificates of a file that has a key as well to a file that everybody may read, whole or not at all.
func Extract(data []byte, to string) error {
	certs, err := certbind.ReadCertificates(data, true)
	if err != nil {
		return err
	}
	dir := filepath.Dir(to)
	if err := os.Mkdir(dir, 0o755); err == nil {
		if err := os.Chmod(dir, 0o755); err != nil { // whatever the umask is
			return err
		}
	} else if !errors.Is(err, os.ErrExist) {
		return err
	}
	return wholefile.Replace(to, encode(certs))
}

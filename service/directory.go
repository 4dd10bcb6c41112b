package service

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/timerslack"
)

// Of one directory's account the user database of one machine says alice@ad.example.com, that of another alice, or AD\alice. Where
// domains are named (AccountOptions.Domains), each account is either the machine's own, by a line of /etc/passwd, and keeps its
// name, or it is of one of the domains, and is alice@ad.example.com on every machine: that is what the database has to lead to
// the uid from. So nobody's word is taken for a domain, a name without one is never a directory's, and as ever no two uids have one
// name.

// maxDomains is how many domains may be named: each is a question for the database.
const maxDomains = 8

// CheckDomains says why domains, in lower case, cannot be those of accounts.
func CheckDomains(domains []string) error {
	if len(domains) > maxDomains {
		return fmt.Errorf("there are %d domains, more than %d", len(domains), maxDomains)
	}
	for i, d := range domains {
		if err := certbind.ValidMachineName(d); err != nil {
			return fmt.Errorf("%.80q is no domain: it is written as DNS has it, such as ad.example.com", d)
		}
		if slices.Contains(domains[:i], d) {
			return fmt.Errorf("the domain %s is given twice: give it once", d)
		}
	}
	return nil
}

// inDomain returns the name of a user with his domain.
func (r resolver) inDomain(u userEntry) (string, error) {
	refuse := func(format string, args ...any) (string, error) {
		return "", reason.Errorf(reason.LocalAccount, "the account name %.80q of uid %d cannot be used: %w", u.name, u.uid,
			fmt.Errorf(format, args...))
	}
	user, domain := cutDomain(ascii.Lower(u.name))
	domains := r.opts.Domains
	switch {
	case strings.ContainsAny(user, `@\`):
		return refuse("it names more than one domain")
	case slices.Contains(domains, domain):
		domains = []string{domain}
	case strings.Contains(domain, "."):
		return refuse("its domain is %w, %s; add it there, on all machines", errNoDomain, strings.Join(domains, ", "))
	}
	var of []string
	for _, d := range domains {
		name := user + "@" + d
		if err := certbind.ValidAccount(name, true); err != nil {
			return refuse("%w", err)
		}
		uid, err := query(r, r.source.uidOf, name)
		switch {
		case err != nil && !absent(err, name):
			return "", reason.Errorf(reason.Internal, "the user database failed for account %q: %w", name, err)
		case err == nil && uid == u.uid:
			of = append(of, name)
		}
	}
	switch {
	case len(of) == 1:
		return of[0], nil
	case len(of) > 1:
		return refuse("the user database (%s) has it in several domains, as %s; give it one name there", AccountSource,
			strings.Join(of, " and "))
	}
	return refuse("it is not in /etc/passwd, and its domain, by the user database (%s), is %w, %s; add it there, on all machines",
		AccountSource, errNoDomain, strings.Join(domains, ", "))
}

var errNoDomain = errors.New("none of those whose accounts may take part")

// OfNoDomain reports whether an account was refused since it is of none of the domains that are named.
func OfNoDomain(err error) bool { return errors.Is(err, errNoDomain) }

// cutDomain returns what stands before the last "@", or behind the first backslash, and the rest.
func cutDomain(name string) (user, domain string) {
	if i := strings.LastIndexByte(name, '@'); i >= 0 {
		return name[:i], name[i+1:]
	}
	if domain, user, found := strings.Cut(name, `\`); found {
		return user, domain
	}
	return name, ""
}

// An UnfitAccount has a name, and cannot take part.
type UnfitAccount struct {
	UID  uint32
	Name string // as the user database has it
	Err  error
}

// Unfit returns those of uids whose accounts cannot take part, as far as ctx allows. Uids without a name are passed over, and what
// the database does not tell.
func Unfit(ctx context.Context, uids []uint32, o AccountOptions) (unfit []UnfitAccount) {
	return unfitAccounts(ctx, uids, o, newUserSource(), newUserFiles())
}

func unfitAccounts(ctx context.Context, uids []uint32, o AccountOptions, src userSource, files *userFiles) (unfit []UnfitAccount) {
	o.Groups = nil
	ask := func() (context.Context, context.CancelFunc) { return context.WithCancel(ctx) }
	r := resolver{source: src, files: files, opts: o, ask: ask}
	for _, uid := range uids {
		if ctx.Err() != nil {
			break
		}
		u, err := query(r, src.byUID, uid)
		if err != nil {
			continue
		}
		if _, err := r.resolve(uid); reason.Of(err) == reason.LocalAccount {
			unfit = append(unfit, UnfitAccount{uid, u.name, err})
		}
	}
	return unfit
}

// Listed returns those uids that the user database lists whose names may keep them out, as far as ctx allows: a directory may have
// many accounts, and may list none.
func Listed(ctx context.Context, o AccountOptions) []uint32 {
	path, err := exec.LookPath("getent")
	if err != nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, path, "passwd")
	cmd.Env = []string{"LC_ALL=C"}
	out, err := cmd.StdoutPipe()
	if err != nil || timerslack.Inherited(cmd.Start) != nil {
		return nil
	}
	uids := listed(out, o, newUserFiles())
	cmd.Process.Kill() // it may have more to say than is read
	cmd.Wait()
	return uids
}

// listBytes is how much of a list is read.
const listBytes = 4 << 20

func listed(list io.Reader, o AccountOptions, files *userFiles) (uids []uint32) {
	for s := bufio.NewScanner(io.LimitReader(list, listBytes)); s.Scan(); {
		f := strings.Split(s.Text(), ":")
		if len(f) < 3 {
			continue
		}
		uid, err := parseID(f[2])
		if err == nil && (certbind.ValidAccount(f[0], o.AllowDomainAccounts) != nil ||
			len(o.Domains) > 0 && !files.has(uid, ascii.Lower(f[0]))) {
			uids = append(uids, uid)
		}
	}
	return uids
}

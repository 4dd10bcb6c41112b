package daemon

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/service"
)

// What check looks at of the user database, which may be a directory far away: so many accounts for so long.
const (
	accountsLooked = 300
	accountsWait   = 10 * time.Second
	accountsShown  = 5
)

// checkAccounts warns of accounts of this machine that cannot take part.
func checkAccounts(o service.AccountOptions) []certbind.Fault {
	ctx, cancel := context.WithTimeout(context.Background(), accountsWait)
	defer cancel()
	uids := usersOfProcesses()
	for _, uid := range service.Listed(ctx, o) {
		if !slices.Contains(uids, uid) {
			uids = append(uids, uid)
		}
	}
	return unfitFaults(service.Unfit(ctx, uids[:min(len(uids), accountsLooked)], o))
}

// usersOfProcesses returns the uids that have processes here or are logged in: accounts of a directory that does not list them are
// found by that alone. Processes of containers are among them, with uids that have no name as a rule.
func usersOfProcesses() (uids []uint32) {
	const looked = 1 << 16
	seen := map[uint32]bool{}
	add := func(uid uint32) {
		if !seen[uid] && len(uids) < accountsLooked {
			seen[uid] = true
			uids = append(uids, uid)
		}
	}
	if n, err := strconv.ParseUint(os.Getenv("SUDO_UID"), 10, 32); err == nil {
		add(uint32(n))
	}
	for _, dir := range []string{"/run/user", "/proc"} {
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		names, _ := f.Readdirnames(looked)
		f.Close()
		for _, name := range names {
			var st syscall.Stat_t
			if strings.Trim(name, "0123456789") == "" && syscall.Stat(dir+"/"+name, &st) == nil {
				add(st.Uid)
			}
		}
	}
	return uids
}

// A kind is what keeps accounts out, and what helps.
type kind struct{ what, cure string }

var (
	domainKind = kind{"their names hold domains", "name the domains on all machines (--account-domain, docs/operate.md, \"Accounts of a " +
		"directory\")"}
	otherDomainKind = kind{"they are of none of the domains that are named", "add their domains on all machines (--account-domain), or leave it: " +
		"who is of another shall perhaps not take part"}
	characterKind = kind{"their names hold characters that are refused", "give them other names, in the directory or on its clients (SSSD: " +
		"sss_override user-add NAME -n NEW; FreeIPA: ipa idoverrideuser-add); a to z, 0 to 9 and . _ $ + - are accepted"}
	otherKind = kind{"of what is said of each", "what it says"}
)

// unfitFaults sums up accounts by what keeps them out.
func unfitFaults(unfit []service.UnfitAccount) (faults []certbind.Fault) {
	for _, k := range []kind{domainKind, otherDomainKind, characterKind, otherKind} {
		var shown []string
		n := 0
		for _, u := range unfit {
			if kindOf(u) != k {
				continue
			}
			if n++; n > accountsShown {
				continue
			}
			text := fmt.Sprintf("%.80q (uid %d)", u.Name, u.UID)
			switch k {
			case characterKind:
				text += fmt.Sprintf(" by %q", refusedIn(u.Name))
			case otherKind:
				text += ": " + u.Err.Error()
			}
			shown = append(shown, text)
		}
		if n == 0 {
			continue
		}
		if n > accountsShown {
			shown = append(shown, fmt.Sprintf("%d more", n-accountsShown))
		}
		faults = append(faults, certbind.Fault{Warning: true, Cure: k.cure,
			What: fmt.Sprintf("%d of this machine's accounts cannot take part, since %s: %s", n, k.what, strings.Join(shown, ", "))})
	}
	return faults
}

func kindOf(u service.UnfitAccount) kind {
	switch {
	case refusedIn(u.Name) != "":
		return characterKind
	case certbind.SettingOf(u.Err) == certbind.SettingDomainAccounts:
		return domainKind
	case service.OfNoDomain(u.Err):
		return otherDomainKind
	}
	return otherKind
}

// refusedIn returns the characters of a name that no account may have, each once. Capitals are none: names count in lower case.
func refusedIn(name string) string {
	var refused []rune
	for _, r := range name {
		if (r >= utf8.RuneSelf || certbind.ValidAccount("a"+strings.ToLower(string(r)), true) != nil) && !slices.Contains(refused, r) {
			refused = append(refused, r)
		}
	}
	return string(refused)
}

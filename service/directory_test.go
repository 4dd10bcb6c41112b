package service

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// directoryUsers is a user database as SSSD and winbind make one: an account has one name that is shown, and others that lead to it.
type directoryUsers struct {
	oneWay
	shown map[uint32]string
	lead  map[string]uint32
	fails string // the name at which it does
	asked []string
}

func (d *directoryUsers) byUID(_ context.Context, uid uint32) (userEntry, error) {
	if d.shown[uid] == "" {
		return userEntry{}, errNoUser
	}
	return userEntry{d.shown[uid], uid, uid}, nil
}

func (d *directoryUsers) uidOf(_ context.Context, name string) (uint32, error) {
	d.asked = append(d.asked, name)
	if name == d.fails {
		return 0, errors.New("the directory is away")
	}
	if uid, ok := d.lead[strings.ToLower(name)]; ok {
		return uid, nil
	}
	return 0, errNoUser
}

const ad, ipa = "ad.example.com", "ipa.example.com"

// One account is one name on each machine, however its user database writes it; and no account gets another's, whatever the
// directories, the machines' own files and the aliases of either say.
func TestRule17Domains(t *testing.T) {
	files := testUserFiles(t, "root:x:0:0::/:\nalice:x:1000:1000::/:\nBob:x:1001:1::/:\nshadow:x:70009:1::/:\n", "")
	all := map[string]uint32{"root": 0, "alice": 1000, "alice@ad.example.com": 70001, `ad\alice`: 70001, "alice@ipa.example.com": 80001,
		"shadow": 70009, "shadow@ad.example.com": 70009}
	with := func(more map[string]uint32) map[string]uint32 {
		lead := make(map[string]uint32)
		for name, uid := range all {
			lead[name] = uid
		}
		for name, uid := range more {
			lead[name] = uid
		}
		return lead
	}
	for name, tc := range map[string]struct {
		shown   string
		uid     uint32
		lead    map[string]uint32 // beside all
		domains []string          // ad and ipa if nil
		fails   string
		want    string // "" if it is refused
		text    string
		code    reason.Code
	}{
		"AD through IPA":            {shown: "alice@ad.example.com", uid: 70001, want: "alice@ad.example.com"},
		"in capitals":               {shown: "Alice@AD.EXAMPLE.COM", uid: 70001, want: "alice@ad.example.com"},
		"AD by itself":              {shown: "alice", uid: 70001, want: "alice@ad.example.com"},
		"winbind":                   {shown: `AD\Alice`, uid: 70001, want: "alice@ad.example.com"},
		"a flat name behind @":      {shown: "alice@AD", uid: 70001, want: "alice@ad.example.com"},
		"IPA's own":                 {shown: "alice", uid: 80001, want: "alice@ipa.example.com"},
		"the machine's own":         {shown: "alice", uid: 1000, want: "alice"},
		"root":                      {shown: "root", uid: 0, want: "root"},
		"own, and AD's by one uid":  {shown: "shadow", uid: 70009, want: "shadow"},
		"IPA's, whose is not named": {shown: "alice", uid: 80001, domains: []string{ad}, text: "none of those whose accounts may take part"},
		"a domain not named":        {shown: "eve@evil.example.com", uid: 90001, lead: map[string]uint32{"eve@ad.example.com": 90001}, text: "none of those"},
		"nobody's":                  {shown: "eve", uid: 90001, lead: map[string]uint32{"eve": 90001}, text: "not in /etc/passwd"},
		"own by name alone":         {shown: "alice", uid: 5000, text: "not in /etc/passwd"},
		"another's name":            {shown: "alice@ad.example.com", uid: 80001, text: "none of those"},
		// SSSD finds accounts by their mail address as well: eve of IPA is alice, and has set hers to that of an alice in AD.
		"a mail address": {shown: "alice", uid: 80001, lead: map[string]uint32{"alice@ad.example.com": 80001}, text: "several domains"},
		"two domains":    {shown: `a\b@ad.example.com`, uid: 70001, text: "more than one domain"},
		"a space":        {shown: "john doe", uid: 70002, lead: map[string]uint32{"john doe@ad.example.com": 70002}, text: "may hold only"},
		"no character":   {shown: "@ad.example.com", uid: 70001, text: "cannot be used"},
		"the directory is away": {shown: "alice", uid: 70001, fails: "alice@ipa.example.com", text: "the directory is away",
			code: reason.Internal},
		"nor can it be asked of own accounts": {shown: "root", uid: 0, fails: "root@ad.example.com", want: "root"},
	} {
		t.Run(name, func(t *testing.T) {
			src := &directoryUsers{shown: map[uint32]string{tc.uid: tc.shown}, lead: with(tc.lead), fails: tc.fails}
			o := AccountOptions{AllowDomainAccounts: true, Domains: tc.domains}
			if o.Domains == nil {
				o.Domains = []string{ad, ipa}
			}
			a := newAccounts(o, src)
			a.files = files
			acct, err := a.Lookup(t.Context(), tc.uid)
			if acct.Name != tc.want {
				t.Errorf("it is %q, want %q: %v", acct.Name, tc.want, err)
			}
			if tc.want == "" {
				if tc.code == 0 {
					tc.code = reason.LocalAccount
				}
				wantReason(t, err, tc.code, tc.text)
				return
			}
			if uid := src.lead[acct.Name]; uid != tc.uid {
				t.Errorf("%q leads to uid %d, not to %d", acct.Name, uid, tc.uid)
			}
			if own := !strings.Contains(tc.want, "@"); own && slices.ContainsFunc(src.asked, func(n string) bool { return strings.Contains(n, "@") }) {
				t.Errorf("of one of the machine's own a directory was asked: %q", src.asked)
			}
		})
	}
}

// Whatever two accounts are called, in however many ways a directory leads to them, they are never one.
func FuzzDomains(f *testing.F) {
	f.Add("alice", "alice@ad.example.com", "alice@ad.example.com", "alice@ipa.example.com", true)
	f.Add(`AD\a`, "a@AD", "a@ad.example.com", "A@ad.example.com", false)
	f.Fuzz(func(t *testing.T, one, two, leads1, leads2 string, fold bool) {
		lead := map[string]uint32{strings.ToLower(leads1): 1, strings.ToLower(leads2): 2}
		if fold {
			lead[strings.ToLower(one)], lead[strings.ToLower(two)] = 1, 2
		}
		src := &directoryUsers{shown: map[uint32]string{1: one, 2: two}, lead: lead}
		a := newAccounts(AccountOptions{AllowDomainAccounts: true, Domains: []string{ad, ipa}}, src)
		a.files = testUserFiles(t, "alice:x:1:1::/:\n", "")
		first, err1 := a.Lookup(t.Context(), 1)
		second, err2 := a.Lookup(t.Context(), 2)
		if err1 == nil && err2 == nil && first.Name == second.Name {
			t.Fatalf("%q and %q are both %q", one, two, first.Name)
		}
		if err2 == nil && !strings.HasSuffix(second.Name, "@"+ad) && !strings.HasSuffix(second.Name, "@"+ipa) {
			t.Fatalf("%q, which is not of this machine, is %q", two, second.Name)
		}
	})
}

func TestUnfit(t *testing.T) {
	shown := map[uint32]string{0: "root", 1: "alice@ad.example.com", 2: "john doe", 3: "Carol", 4: "müller", 6: "o'neil"}
	lead := map[string]uint32{"root": 0, "alice@ad.example.com": 1, "john doe": 2}
	src := &directoryUsers{shown: shown, lead: lead}
	files := testUserFiles(t, "root:x:0:0::/:\n", "")
	uids := []uint32{0, 1, 2, 3, 4, 5, 6}
	of := func(o AccountOptions) (found []uint32) {
		for _, u := range unfitAccounts(t.Context(), uids, o, src, files) {
			if u.Name != shown[u.UID] || u.Err == nil {
				t.Errorf("%+v", u)
			}
			found = append(found, u.UID)
		}
		return found
	}
	if got := of(AccountOptions{}); !slices.Equal(got, []uint32{1, 2, 3, 4, 6}) {
		t.Error(got)
	}
	if got := of(AccountOptions{AllowDomainAccounts: true, Domains: []string{ad}}); !slices.Equal(got, []uint32{2, 3, 4, 6}) {
		t.Error(got)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if got := unfitAccounts(over, uids, AccountOptions{}, src, files); got != nil {
		t.Error(got)
	}
	list := "root:x:0:0::/:\nalice@ad.example.com:x:1:1::\nbroken\nbob:x:2:2\njohn doe:x:3:3\nx y:x:many:3\nBob:x:4:4\n"
	if got := listed(strings.NewReader(list), AccountOptions{}, files); !slices.Equal(got, []uint32{1, 3, 4}) {
		t.Error(got)
	}
	if got := listed(strings.NewReader(list), AccountOptions{AllowDomainAccounts: true, Domains: []string{ad}}, files); !slices.Equal(got,
		[]uint32{1, 2, 3, 4}) {
		t.Error(got)
	}
	endless := strings.Repeat("x y:x:7:7\n", listBytes)
	if got := len(listed(strings.NewReader(endless), AccountOptions{}, files)); got > listBytes/10 {
		t.Error(got)
	}
}

func TestCheckDomains(t *testing.T) {
	for domains, good := range map[string]bool{"ad.example.com": true, "ad.example.com,corp": true, "": false, "ad.example.com,": false,
		"AD.example.com": false, "a b": false, "a.b,a.b": false, "@ad": false, "a,b,c,d,e,f,g,h": true, "a,b,c,d,e,f,g,h,i": false} {
		if err := CheckDomains(strings.Split(domains, ",")); (err == nil) != good {
			t.Errorf("%q: %v", domains, err)
		}
	}
}

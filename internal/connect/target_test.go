package connect

import (
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/names"
)

func TestParseTarget(t *testing.T) {
	for _, tt := range []struct{ v, account, machine, port, refusal string }{
		{"postgres@beta.example.com:6432", "postgres@beta.example.com", "beta.example.com", "6432", ""},
		{"Bob@Beta.Example.COM:022", "bob@beta.example.com", "beta.example.com", "22", ""},
		{"bob@corp@b.test:1", "bob@corp@b.test", "b.test", "1", ""},
		{"", "", "", "", "no port"}, {"bob@b.test", "", "", "", "no port"}, {"bob:1@b.test", "", "", "", "no port"},
		{"bob@b.test:", "", "", "", "1 to 65535"}, {"bob@b.test:0", "", "", "", "1 to 65535"}, {"bob@b.test:65536", "", "", "", "1 to 65535"},
		{"bob@b.test:ssh", "", "", "", "1 to 65535"}, {"bob@b.test:+1", "", "", "", "1 to 65535"},
		{"b.test:1", "", "", "", "names no account"}, {"@b.test:1", "", "", "", "names no account"}, {"bob@:1", "", "", "", "names no account"},
		{"bob@[::1]:1", "", "", "", "--dial"}, {"bob@::1:1", "", "", "", "--dial"}, {"bob@127.0.0.1:1", "", "", "", "--dial"},
		{"bob@b.test.:1", "", "", "", "dot at its end"}, {"bob@localhost:1", "", "", "", "localhost"}, {"b b@b.test:1", "", "", "", "account"},
	} {
		got, err := ParseTarget(tt.v)
		if tt.refusal != "" {
			if err == nil || !strings.Contains(err.Error(), tt.refusal) {
				t.Errorf("%q: %v, want %q", tt.v, err, tt.refusal)
			}
			continue
		}
		if want := (Target{tt.account, tt.machine, tt.port}); err != nil || got != want {
			t.Errorf("%q: %+v, %v", tt.v, got, err)
		}
	}
}

// Whatever is taken for a target names an account and a machine that can be, and is read in the same way again.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{"postgres@beta.example.com:6432", "a@b@c.test:1", "x@[::1]:1", "x@y:z", "@:1", "A@B:65535"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, v string) {
		got, err := ParseTarget(v)
		if err != nil {
			return
		}
		user, machine := names.SplitAccount(got.Account)
		if err := certbind.ValidMachineName(machine); err != nil || machine != got.Machine {
			t.Errorf("%q: %+v, %v", v, got, err)
		}
		if err := certbind.ValidAccount(user, true); err != nil {
			t.Errorf("%q: %+v, %v", v, got, err)
		}
		if again, err := ParseTarget(got.String()); err != nil || again != got {
			t.Errorf("%q: %+v, and again %+v, %v", v, got, again, err)
		}
	})
}

func TestParsePlace(t *testing.T) {
	for _, tt := range []struct{ v, kind, refusal string }{
		{"unix:/run/x", "unix", ""}, {"unix:x", "unix", ""}, {"unix:%d/.s.PGSQL.5432", "unix", ""}, {"systemd:connect", "systemd", ""},
		{"127.0.0.1:0", "tcp", ""}, {"127.3.4.5:6432", "tcp", ""}, {"[::1]:6432", "tcp", ""},
		{"unix:", "", "absolute path"}, {"unix:../x", "", "absolute path"}, {"unix:a/b", "", "absolute path"}, {"unix:.", "", "absolute path"},
		{"unix:/run/../x", "", "plain path"}, {"unix:@x", "unix", ""}, {"unix:/x%d", "", "beginning"}, {"unix:%d", "", "beginning"}, {"systemd:", "", "FileDescriptorName="},
		{"0.0.0.0:1", "", "loopback"}, {"[::]:1", "", "loopback"}, {"192.0.2.1:1", "", "loopback"}, {"[::ffff:127.0.0.1]:1", "", "loopback"},
		{"[::1%lo]:1", "", "loopback"}, {"localhost:1", "", "none of"}, {":1", "", "none of"}, {"1", "", "none of"}, {"127.0.0.1", "", "none of"}, {"", "", "none of"},
	} {
		p, err := ParsePlace(tt.v)
		if tt.refusal != "" {
			if err == nil || !strings.Contains(err.Error(), tt.refusal) {
				t.Errorf("%q: %v, want %q", tt.v, err, tt.refusal)
			}
		} else if err != nil || p.kind != tt.kind {
			t.Errorf("%q: %+v, %v", tt.v, p, err)
		}
	}
}

func TestExpand(t *testing.T) {
	for _, tt := range []struct{ v, want string }{
		{"", ""}, {"x", "x"}, {"%d", "/dir"}, {"host=%d port=%p", "host=/dir port=7"}, {"100%%", "100%"}, {"%%d", "%d"}, {"%", "-"},
		{"%x", "-"}, {"a%", "-"},
	} {
		got, err := expand(tt.v, "/dir", 7)
		if err != nil {
			got = "-"
		}
		if got != tt.want {
			t.Errorf("%q: %q, %v, want %q", tt.v, got, err, tt.want)
		}
	}
}

// What is expanded without an error has neither lost nor gained a character but for what it stands for.
func FuzzExpand(f *testing.F) {
	for _, seed := range []string{"%d/x", "%p", "100%%", "%%%d", "%", "PGHOST=%d"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, v string) {
		got, err := expand(v, "%d", 1)
		if err != nil {
			return
		}
		// With each stand-in expanded to itself the text is as before, but for the port and the percent signs.
		if want := strings.NewReplacer("%%", "%", "%p", "1", "%d", "%d").Replace(v); got != want {
			t.Errorf("%q: %q, want %q", v, got, want)
		}
	})
}

func TestEnvironment(t *testing.T) {
	var settings []Setting
	for _, v := range []string{"A=%d", "B=", "A=%p", "C=x=y"} {
		s, err := ParseSetting(v)
		if err != nil {
			t.Fatal(err)
		}
		settings = append(settings, s)
	}
	got, err := environment([]string{"A=old", "AA=stays", "B=old"}, settings, "/dir", 7)
	if want := "AA=stays B= A=7 C=x=y"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
	for _, v := range []string{"", "A", "=x", "A=%q"} {
		if _, err := ParseSetting(v); err == nil {
			t.Errorf("%q is taken", v)
		}
	}
}

package denylist

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/daemon"
	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

func TestPattern(t *testing.T) {
	key := strings.Repeat("0a", 32)
	for _, c := range []struct{ arg, want, err string }{
		{"Mallory@Login2.example.com", "deny any * mallory@login2.example.com", ""},
		{"*@.hpc.example.com", "deny any * *@.hpc.example.com", ""},
		{"login2.example.com", "deny any * *@login2.example.com", ""},
		{".hpc.example.com", "deny any * *@.hpc.example.com", ""},
		{"a@ad.example.com@b.example.com", "deny any * a@ad.example.com@b.example.com", ""},
		{"key=" + key, "deny any * *@* key=" + key, ""},
		{`cert=04F:"CN=Example CA,O=Example"`, `deny any * *@* cert=4f:"CN=Example CA,O=Example"`, ""},
		{"cert=4f:CN=Example CA", `deny any * *@* cert=4f:"CN=Example CA"`, ""},
		{"mallory", "", "is no pattern"},
		{"key=12", "", "64 hexadecimal digits"},
		{"cert=4f", "", "distinguished name"},
		{`cert=4f:"CN=a"b"`, "", "deny the key"},
		{"a@b.test service=grpc", "", "one pattern"},
		{"a@b.test\nallow any * *@*", "", "cannot be seen"},
		{"a@b.test\u202e", "", "cannot be seen"},
		{"*@*.example.com", "", ".example.com"},
		{"", "", "is no pattern"},
		{"$set@b.test", "", ""},
	} {
		rule, err := Pattern(c.arg, "any", "*")
		if c.want != "" && (err != nil || string(rule) != c.want) || c.want == "" && (err == nil || !strings.Contains(err.Error(), c.err)) {
			t.Errorf("%q: %q, %v, want %q %s", c.arg, rule, err, c.want, c.err)
		}
	}
	if rule, err := Pattern("b.test", "in", "postgres"); err != nil || rule != "deny in postgres *@b.test" {
		t.Errorf("%q, %v", rule, err)
	}
	for _, account := range []string{"* *@* #", "*\t*@* #", "a b@c.test", "", "* *@*\ndeny any *", `"*"`, "=", "a#b"} {
		if rule, err := Pattern("b.test", "any", account); err == nil {
			t.Errorf("the account %q: %q", account, rule)
		}
	}
}

func pattern(t *testing.T, arg string) Rule {
	t.Helper()
	rule, err := Pattern(arg, "any", "*")
	if err != nil {
		t.Fatal(err)
	}
	return rule
}

func TestAddAndRemove(t *testing.T) {
	data, changed := Add(nil, pattern(t, "m@b.test"), "by root at T: "+Clean("INC-1\nallow any * *@*"))
	if want := header + "deny any * m@b.test # by root at T: INC-1 allow any * *@*\n"; !changed || string(data) != want {
		t.Errorf("%q, want %q", data, want)
	}
	if again, changed := Add(data, pattern(t, "M@b.test"), "once more"); changed || string(again) != string(data) {
		t.Errorf("twice: %q", again)
	}
	data, _ = Add([]byte("# mine\ndefine x a b\ndeny in $x *@c.test\ndeny   out  root  M@b.test"), pattern(t, "m@b.test"), "")
	if want := "# mine\ndefine x a b\ndeny in $x *@c.test\ndeny   out  root  M@b.test\ndeny any * m@b.test\n"; string(data) != want {
		t.Errorf("%q, want %q", data, want)
	}
	left, removed := Remove(data, pattern(t, "m@b.test").Is)
	if want := "# mine\ndefine x a b\ndeny in $x *@c.test\n"; string(left) != want || len(removed) != 2 {
		t.Errorf("left %q, removed %q", left, removed)
	}
	if left, removed := Remove(data, func(n int, _ Entry) bool { return n == 2 }); len(removed) != 1 || strings.Contains(string(left), "c.test") {
		t.Errorf("the second: left %q, removed %q", left, removed)
	}
	if long := Clean(strings.Repeat("é", 1000)); len(long) > maxReason+3 || !strings.HasSuffix(long, "é...") {
		t.Errorf("%q", long)
	}
}

func TestFile(t *testing.T) {
	dir := testprog.Dir(t)
	path := filepath.Join(dir, daemon.DeniedFile)
	edit := func(text string) (func() error, error) {
		f, err := Open(dir)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return f.Write([]byte(text))
	}
	back, err := edit("deny any * a@b.test\n")
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("a new file: %v, %v", info, err)
	}
	if err := back(); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("the file is there that was taken back")
	}
	if err := os.WriteFile(path, []byte("# mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 0, 4711); err != nil {
			t.Fatal(err)
		}
	}
	before, _ := os.Stat(path)
	if err := os.WriteFile(filepath.Join(dir, newName), []byte("of one who was killed"), 0o600); err != nil {
		t.Fatal(err)
	}
	back, err = edit("deny any * a@b.test\n")
	after, _ := os.Stat(path)
	if err != nil || after.Mode() != before.Mode() || os.SameFile(before, after) {
		t.Errorf("an edit: %v, mode %v", err, after.Mode())
	}
	if _, err := os.Lstat(filepath.Join(dir, newName)); err == nil {
		t.Error("the new file stays behind")
	}
	if data, err := os.ReadFile(path); string(data) != "deny any * a@b.test\n" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := edit("allow any * *@*\n"); err == nil || !strings.Contains(err.Error(), "would refuse") {
		t.Errorf("what the daemon would refuse: %v", err)
	}
	if err := back(); err != nil {
		t.Error(err)
	}
	if data, err := os.ReadFile(path); string(data) != "# mine\n" {
		t.Errorf("taken back: %q, %v", data, err)
	}
	if err := os.Rename(path, path+".real"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path+".real", path); err != nil {
		t.Fatal(err)
	}
	if _, err := edit(""); err == nil || !strings.Contains(err.Error(), "symlink") {
		t.Errorf("a symlink: %v", err)
	}
}

// What an editor writes in the middle stays.
func TestFileEditedMeanwhile(t *testing.T) {
	dir := testprog.Dir(t)
	path := filepath.Join(dir, daemon.DeniedFile)
	const mine, other = "deny any * a@b.test\n", "deny any * other@b.test\n"
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, before := range []string{"", "# before\n"} {
		if before != "" {
			write(before)
		}
		for _, late := range []bool{false, true} {
			f, err := Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			edit := func() (func() error, error) { return f.Write([]byte(mine)) }
			if late {
				back, err := edit()
				if err != nil {
					t.Fatal(err)
				}
				edit = func() (func() error, error) { return nil, back() }
			}
			write(other)
			if _, err := edit(); err == nil || !strings.Contains(err.Error(), "somebody else has changed") {
				t.Errorf("from %q, late %v: %v", before, late, err)
			}
			if data, err := os.ReadFile(path); string(data) != other {
				t.Errorf("from %q, late %v: %q, %v", before, late, data, err)
			}
			if _, err := os.Lstat(filepath.Join(dir, newName)); err == nil {
				t.Error("the new file stays behind")
			}
			f.Close()
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if before != "" {
				write(before)
			}
		}
	}
}

// Edits go one after another, and none is lost.
func TestFileLock(t *testing.T) {
	dir := testprog.Dir(t)
	first, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		second, err := Open(dir)
		if err == nil {
			defer second.Close()
			data, _ := Add(second.Data(), "deny any * second@b.test", "")
			_, err = second.Write(data)
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("two edit at once: %v", err)
	case <-time.After(10 * lockRetry):
	}
	data, _ := Add(first.Data(), "deny any * first@b.test", "")
	if _, err := first.Write(data); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	data, err = os.ReadFile(filepath.Join(dir, daemon.DeniedFile))
	if err != nil || len(Entries(data)) != 2 {
		t.Errorf("%q, %v", data, err)
	}
	if info, err := os.Stat(filepath.Join(dir, lockName)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the lock: %v, %v", info, err)
	}
}

// Whatever is given as PATTERN and reason, one denial more is in the file, which can be read, and nothing else is another.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{"a@b.test", "b.test", `cert=4f:"CN=a"`, "key=00", "a@b.test # x", "$x@b.test", "%g@b.test", "=@.b.test"} {
		f.Add(s, "why\nnot", "# mine\ndeny any * c@d.test")
	}
	f.Fuzz(func(t *testing.T, arg, why, before string) {
		rule, err := Pattern(arg, "any", "*")
		if err != nil {
			return
		}
		if _, err := policy.ParseDenied([]policy.File{{Name: "x", Data: []byte(before)}}); err != nil {
			return
		}
		data, changed := Add([]byte(before), rule, Clean(why))
		d, err := policy.ParseDenied([]policy.File{{Name: "x", Data: data}})
		if err != nil {
			t.Fatalf("%q, %q, %q: %v", arg, why, before, err)
		}
		if !strings.Contains(d.String(), string(rule)) {
			t.Errorf("%q is not in %q", rule, d)
		}
		if n := len(Entries(data)) - len(Entries([]byte(before))); changed && n != 1 || !changed && n != 0 {
			t.Errorf("%d denials more", n)
		}
		if left, _ := Remove(data, rule.Is); strings.Contains(string(left), string(rule)+"\n") {
			t.Errorf("%q is left in %q", rule, left)
		}
	})
}

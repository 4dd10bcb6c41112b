package policy

import (
	"fmt"
	"strings"
	"testing"
)

// The judgement of a connection that nothing is said of, the longest there is, with ever more lines of each kind.
func BenchmarkJudge(b *testing.B) {
	for name, line := range map[string]func(i int) string{
		"peers":    func(i int) string { return fmt.Sprintf("deny any * user%d@n%d.cn.hpc.example.com", i, i%97) },
		"accounts": func(i int) string { return fmt.Sprintf("deny any * user%d@.example.com", i) },
		"local":    func(i int) string { return fmt.Sprintf("deny any user%d *@.example.com", i) },
		"keys":     func(i int) string { return fmt.Sprintf("deny any * *@* key=%x", NameHash(fmt.Sprint(i))) },
		"certs":    func(i int) string { return fmt.Sprintf(`deny any * *@* cert=%x:"CN=Example CA,O=Example"`, i+1) },
		"services": func(i int) string { return fmt.Sprintf("deny any * *@.example.com service=%d", i) },
	} {
		for _, n := range []int{10, 10_000} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				var text strings.Builder
				for i := range n {
					text.WriteString(line(i) + "\n")
				}
				p := New(denied(b, text.String()), rules(b, "default out allow\n"+issue[strings.Index(issue, "define"):]).rules)
				c := conn("in", "alice/ops", "bob@n1.cn.hpc.example.com/users,video")
				c.Peer.Names = append(c.Peer.Names, "n1", "n1.example.com")
				c.Peer.Certificates = []Certificate{{"ffff0001", NameHash("CN=Example CA,O=Example")}, {"ffff0002", NameHash("CN=Root")}}
				if v := p.Judge(c); v.Rule != "default in" {
					b.Fatal(v)
				}
				b.ReportAllocs()
				for b.Loop() {
					p.Judge(c)
				}
			})
		}
	}
}

// Reading and checking of as many rules as there may be.
func BenchmarkParse(b *testing.B) {
	var text strings.Builder
	for i := range maxRules {
		fmt.Fprintf(&text, "deny any * user%d@n%d.cn.hpc.example.com\n", i, i%97)
	}
	in := files(text.String())
	for b.Loop() {
		if _, err := ParseDenied(in); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLint(b *testing.B) {
	var text strings.Builder
	for i := range 10_000 {
		fmt.Fprintf(&text, "deny any * user%d@n%d.cn.hpc.example.com\n", i, i%97)
	}
	p := New(denied(b, text.String()), nil)
	for b.Loop() {
		p.Lint(nil)
	}
}

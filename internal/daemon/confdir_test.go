package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// TestRule67ConfDir: the files beside the config file are read by what holds for that file, all of them or none, and each is as
// much as the file itself.
func TestRule67ConfDir(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make what belongs to others")
	}
	const other = 4711
	two := func(p *place) {
		p.mkdir("conf.d", 0o755, 0)
		p.file("conf.d/b.conf", 0o644, 0, []byte("b"))
		p.file("conf.d/a.conf", 0o644, 0, []byte("a"))
	}
	for _, tt := range []struct {
		name string
		make func(p *place)
		want string // names of files; or what is in the error, after "!"
	}{
		{"none", func(p *place) {}, ""},
		{"empty", func(p *place) { p.mkdir("conf.d", 0o755, 0) }, ""},
		{"in order", two, "a.conf b.conf"},
		{"others", func(p *place) {
			two(p)
			p.file("conf.d/c.conf~", 0o666, other, nil)
			p.file("conf.d/.d.conf", 0o666, other, nil)
			p.file("conf.d/README", 0o666, other, nil)
		}, "a.conf b.conf"},
		{"a link of root's", func(p *place) {
			two(p)
			p.file("c", 0o644, 0, nil)
			p.link("../c", "conf.d/c.conf", 0)
		}, "a.conf b.conf c.conf"},
		{"a file of another", func(p *place) { two(p); p.file("conf.d/c.conf", 0o644, other, nil) }, "!uid 4711"},
		{"a file of a group", func(p *place) { two(p); p.file("conf.d/c.conf", 0o664, 0, nil) }, "!chmod go-w"},
		{"a directory of another", func(p *place) { p.mkdir("conf.d", 0o755, other) }, "!uid 4711"},
		{"a directory of a group", func(p *place) { p.mkdir("conf.d", 0o775, 0) }, "!chmod go-w"},
		{"a link into a directory of another", func(p *place) {
			p.mkdir("elsewhere", 0o755, other)
			p.link("elsewhere", "conf.d", 0)
		}, "!uid 4711"},
		{"a link that leads nowhere", func(p *place) { two(p); p.link("none", "conf.d/c.conf", 0) }, "!no such file"},
		{"a directory's link that leads nowhere", func(p *place) { p.link("none", "conf.d", 0) }, "!no such file"},
		{"a directory in the place of a file", func(p *place) { two(p); p.mkdir("conf.d/c.conf", 0o755, 0) }, "!not a plain file"},
		{"a file in the place of the directory", func(p *place) { p.file("conf.d", 0o644, 0, nil) }, "!not a directory"},
		{"too large together", func(p *place) {
			two(p)
			p.file("conf.d/c.conf", 0o644, 0, make([]byte, 1<<20))
		}, "!more than 1048576 bytes"},
		{"too many", func(p *place) {
			p.mkdir("conf.d", 0o755, 0)
			for i := range 257 {
				p.file(fmt.Sprintf("conf.d/%d.conf", i), 0o644, 0, nil)
			}
		}, "!257 config files"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &place{dir: testprog.Dir(t)}
			tt.make(p)
			if p.err != nil {
				t.Fatal(p.err)
			}
			parts, err := ReadConfDir(p.path("shared-altsd.conf"), 1<<20)
			if want, refused := strings.CutPrefix(tt.want, "!"); refused {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want %q", err, want)
				}
				return
			}
			var names []string
			for _, part := range parts {
				if filepath.Dir(part.Path) != p.path("conf.d") {
					t.Errorf("a file at %s", part.Path)
				}
				names = append(names, filepath.Base(part.Path))
			}
			if got := strings.Join(names, " "); err != nil || got != tt.want {
				t.Errorf("%q %v, want %q", got, err, tt.want)
			}
		})
	}
}

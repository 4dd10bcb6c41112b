package docs_test

import (
	"encoding/json"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

const module = "github.com/shared-altsd/shared-altsd/"

// A goPackage is what the go tool says of a package.
type goPackage struct {
	ImportPath, Dir, Doc string
	GoFiles, CgoFiles    []string
	Imports              []string
}

// listed is what go list says, once for all tests.
var listed = sync.OnceValues(func() ([]byte, error) {
	cmd := exec.Command("go", "list", "-json", "./...")
	cmd.Dir = ".."
	return cmd.Output()
})

// packages returns those of the module, without its prefix, by their path.
func packages(t *testing.T) map[string]goPackage {
	t.Helper()
	out, err := listed()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]goPackage{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p goPackage
		if err := d.Decode(&p); err == io.EOF {
			return found
		} else if err != nil {
			t.Fatal(err)
		}
		found[strings.TrimPrefix(p.ImportPath, module)] = p
	}
}

// CONTRIBUTING says what each room is for.
func TestRoomsAreNamed(t *testing.T) {
	text := read(t, "../CONTRIBUTING.md")
	for path := range packages(t) {
		room, found := strings.CutPrefix(path, "internal/")
		if found && !strings.Contains(room, "/") && !regexp.MustCompile(`(?m)^      .*\b`+room+`\b`).MatchString(text) {
			t.Errorf("CONTRIBUTING.md does not have the room %s", path)
		}
	}
}

// Imports point one way, cmd -> service -> noiseproto -> certbind, and altscreds has none of the daemon in it.
func TestImportsPointOneWay(t *testing.T) {
	never := map[string][]string{
		"certbind":         {"noiseproto", "service", "altscreds", "cmd/", "internal/daemon", "internal/altspb", "internal/handed"},
		"noiseproto":       {"service", "altscreds", "cmd/", "internal/daemon", "internal/altspb", "internal/handed"},
		"service":          {"altscreds", "cmd/", "internal/daemon", "internal/cli"},
		"altscreds":        {"service", "noiseproto", "certbind", "cmd/", "internal/daemon", "internal/cli"},
		"internal/":        {"cmd/"},
		"internal/cli":     {"internal/", "service", "certbind", "noiseproto", "altscreds"},
		"internal/forward": {"internal/connect", "internal/listen", "internal/ident", "internal/httpfwd", "service"},
		"internal/ident":   {"internal/connect", "internal/listen", "internal/forward", "internal/httpfwd"},
		"internal/httpfwd": {"internal/connect", "internal/listen", "internal/forward", "internal/ident"},
		"internal/connect": {"internal/listen"},
		"internal/listen":  {"internal/connect"},
	}
	all := packages(t)
	for path, p := range all {
		for from, banned := range never {
			if path != strings.TrimSuffix(from, "/") && !(strings.HasSuffix(from, "/") && strings.HasPrefix(path, from)) {
				continue
			}
			for _, i := range p.Imports {
				i = strings.TrimPrefix(i, module)
				if slices.ContainsFunc(banned, func(b string) bool {
					return i == strings.TrimSuffix(b, "/") || strings.HasSuffix(b, "/") && strings.HasPrefix(i, b)
				}) {
					t.Errorf("%s imports %s", path, i)
				}
			}
		}
	}
	// noiseproto does no I/O, and certbind's is that of the system's pool of CAs and of its debug log alone.
	for path, banned := range map[string][]string{"noiseproto": {"os", "net", "time", "log/slog", "google.golang.org/grpc"},
		"certbind": {"os", "google.golang.org/grpc", "github.com/flynn/noise"}} {
		for _, i := range all[path].Imports {
			if slices.Contains(banned, i) {
				t.Errorf("%s imports %s", path, i)
			}
		}
	}
}

// A file of the product has one subject, and a reader sees it whole: 400 lines, or its first comment says why not.
func TestFilesAreShort(t *testing.T) {
	const most = 400
	for path, p := range packages(t) {
		for _, name := range append(p.GoFiles, p.CgoFiles...) {
			text := read(t, filepath.Join(p.Dir, name))
			if lines := strings.Count(text, "\n"); lines > most && !strings.Contains(text, "DO NOT EDIT") &&
				!strings.Contains(text[:min(len(text), 2000)], "lines because") {
				t.Errorf("%s/%s has %d lines", path, name, lines)
			}
		}
	}
}

// Each package says in one place what it is.
func TestPackagesSayWhatTheyAre(t *testing.T) {
	for path, p := range packages(t) {
		if len(p.GoFiles) > 0 && p.Doc == "" {
			t.Errorf("package %s has no comment", path)
		}
	}
}

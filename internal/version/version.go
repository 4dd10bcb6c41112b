// Package version says what was built, from what and with what, as the Go tool recorded it.
package version

import (
	"runtime"
	"runtime/debug"
	"strings"
	"time"
)

// stamped is the version of the package that the program is built for: deploy/deploy.mk has the linker set it, since the
// Go tool knows none of a work tree.
var stamped string

// Number returns the version of the package or of the module, or "devel" for a build from a work tree without one.
func Number() string {
	if stamped != "" {
		return stamped
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

// Line returns what --version prints.
func Line() string {
	parts := []string{runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	if set := settings(); set != nil {
		if rev := set["vcs.revision"]; rev != "" {
			if set["vcs.modified"] == "true" {
				rev += " with changes"
			}
			parts = append(parts, "commit "+rev+" of "+set["vcs.time"])
		}
		if set["CGO_ENABLED"] == "1" {
			parts = append(parts, "cgo")
		} else {
			parts = append(parts, "static")
		}
	}
	return "shared-altsd " + Number() + " (" + strings.Join(parts, ", ") + ")"
}

// Built returns the time of the commit that the program was built from, zero if that is not known.
func Built() time.Time {
	t, _ := time.Parse(time.RFC3339, settings()["vcs.time"]) // zero with an error
	return t
}

// settings returns those of the build, nil if they were not recorded.
func settings() map[string]string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return nil
	}
	set := make(map[string]string)
	for _, s := range info.Settings {
		set[s.Key] = s.Value
	}
	return set
}

package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// parseCAFlag reads the value of --ca: FILE, or names joined by commas, '=' and FILE. FILE may be the word "system",
// the system's pool, which must be limited to names. Names are put in lower case. What stands before '=' and holds a
// '/' is part of a file's name.
func parseCAFlag(v string) (names []string, file string, err error) {
	limit, file, found := strings.Cut(v, "=")
	if !found || strings.Contains(limit, "/") {
		limit, file, found = "", v, false
	}
	if file == "" {
		return nil, "", errors.New("--ca names no file; write --ca FILE or --ca example.com=FILE")
	}
	if found {
		for n := range strings.SplitSeq(limit, ",") {
			n = ascii.Lower(n)
			if err := certbind.ValidMachineName(n); err != nil {
				return nil, "", fmt.Errorf("--ca limits a CA to %q: %w; write --ca example.com,hpc.example.com=FILE", n, err)
			}
			names = append(names, n)
		}
	}
	if file == "system" && len(names) == 0 {
		return nil, "", errors.New("--ca system would let any public CA vouch for any machine; " +
			"limit it, as in --ca example.com=system")
	}
	return names, file, nil
}

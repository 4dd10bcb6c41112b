// Package ascii changes the case of ASCII letters and of nothing else: Unicode maps letters from outside ASCII into it
// (the Kelvin sign to k), which would make one name of two different ones.
package ascii

import "strings"

// Lower returns s with A to Z in lower case.
func Lower(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}

// Package ascii changes the case of ASCII letters and of nothing else: Unicode maps letters from outside ASCII into it
// (the Kelvin sign to k), which would make one name of two different ones. It also says what is visible, and makes plain what is not.
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

// Visible reports whether s is ASCII without blanks and control characters: a header, a line and a variable of a shell hold
// it as it is.
func Visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// Plain returns s with each byte that a log or a terminal could misread as "?": all but blanks and what is visible.
func Plain(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c < ' ' || c > '~' {
			b[i] = '?'
		}
	}
	return string(b)
}

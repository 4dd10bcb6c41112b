package names

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxGroup is how long the name of a group may be, bytes.
const maxGroup = 256

// EncodeGroups returns the attribute "groups" for names of groups in any order (docs/spec/protocol.md, section 5.4): what
// could end an entry of a list, or be taken for its end, is not there as it is.
func EncodeGroups(groups []string) string {
	var list []string
	for _, g := range groups {
		list = append(list, encodeGroup(g))
	}
	slices.Sort(list)
	return strings.Join(slices.Compact(list), ",")
}

func encodeGroup(group string) string {
	var b strings.Builder
	for i := range len(group) {
		if plain(group[i]) {
			b.WriteByte(group[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", group[i])
		}
	}
	return b.String()
}

// DecodeGroups returns the names in an attribute "groups". Each name has one encoding and no other is taken. The error
// holds no part of the list.
func DecodeGroups(list string) ([]string, error) {
	entries := strings.Split(list, ",")
	for i, e := range entries {
		if i > 0 && e <= entries[i-1] {
			return nil, errors.New("it is not in ascending order, or names a group twice")
		}
	}
	for i, e := range entries {
		group, err := decodeGroup(e)
		if err == nil {
			err = ValidGroup(group)
		}
		if err != nil {
			return nil, err
		}
		entries[i] = group
	}
	return entries, nil
}

func decodeGroup(s string) (string, error) {
	var b []byte
	for i := 0; i < len(s); i++ {
		switch {
		case plain(s[i]):
			b = append(b, s[i])
		case s[i] == '%' && i+2 < len(s) && digit(s[i+1]) >= 0 && digit(s[i+2]) >= 0:
			c := byte(digit(s[i+1])<<4 | digit(s[i+2]))
			if plain(c) {
				return "", errors.New("a byte of a group's name is encoded that stands for itself")
			}
			b = append(b, c)
			i += 2
		default:
			return "", errors.New("a group's name holds a byte that has to be encoded")
		}
	}
	return string(b), nil
}

// ValidGroup reports why a name cannot be that of a group: 1 to 256 bytes of UTF-8 without capitals of ASCII and
// control characters, which does not begin with any of . $ + - @ \. The error holds no part of it.
func ValidGroup(group string) error {
	if group == "" || len(group) > maxGroup {
		return fmt.Errorf("a group's name has %d bytes; it must have 1 to %d", len(group), maxGroup)
	}
	if strings.IndexByte(`.$+-@\`, group[0]) >= 0 {
		return errors.New(`a group's name begins with one of . $ + - @ \`)
	}
	for _, r := range group {
		if r < 0x20 || 0x7f <= r && r < 0xa0 || 'A' <= r && r <= 'Z' {
			return errors.New("a group's name holds a capital or a control character")
		}
	}
	if !utf8.ValidString(group) {
		return errors.New("a group's name is not UTF-8")
	}
	return nil
}

// plain reports whether a byte of a group's name stands for itself: those of account names do.
func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || strings.IndexByte(`_.$+-@\`, c) >= 0
}

// digit returns the value of an upper-case hexadecimal digit, -1 for what is none.
func digit(c byte) int { return strings.IndexByte("0123456789ABCDEF", c) }

// Package names reads the names by which programs and administrators say whom they mean, in one way for all of them:
// what is lowered here is compared nowhere without having been.
package names

import (
	"errors"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// SplitAccount splits "user@machine" at the last "@", without which the machine is "".
func SplitAccount(s string) (user, machine string) {
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		return s[:at], s[at+1:]
	}
	return s, ""
}

// Account returns "user@machine" as the daemons name it, ASCII letters in lower case, with its parts. An error says that
// it is not of that form; whether the parts can be anybody's, docs/spec/protocol.md, sections 5.2 and 5.3, says.
func Account(s string) (account, user, machine string, err error) {
	account = ascii.Lower(s)
	if !strings.Contains(account, "@") {
		return "", "", "", errors.New("it has no @")
	}
	if user, machine = SplitAccount(account); user == "" || machine == "" {
		return "", "", "", errors.New("there is nothing on one side of its @")
	}
	return account, user, machine, nil
}

// Machine returns a machine's name as the daemons name it, ASCII letters in lower case.
func Machine(s string) string { return ascii.Lower(s) }

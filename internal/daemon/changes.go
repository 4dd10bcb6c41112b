package daemon

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
)

// A force is what is in force together, as far as a reload may change it.
type force struct {
	credential *certbind.Credential
	trust      *certbind.Trust
	rules      *ruleSet
}

// maxChanges bounds how many CAs, and how many lists, a change is told of by name.
const maxChanges = 8

// changes returns in words what a reload changes, nothing if all is as it was.
func changes(before, after force) []string {
	var told []string
	old, leaf := before.credential.Leaf, after.credential.Leaf
	switch {
	case !leaf.Equal(old):
		told = append(told, fmt.Sprintf("certificate %s (was %s)", leafName(leaf), leafName(old)))
	case !slices.EqualFunc(before.credential.Chain, after.credential.Chain, slices.Equal[[]byte]):
		told = append(told, "the intermediate certificates")
	}
	told = append(told, few(less("CA added: ", after.trust.CAs(), before.trust.CAs()))...)
	told = append(told, few(less("CA removed: ", before.trust.CAs(), after.trust.CAs()))...)
	told = append(told, few(listChanges(before.trust.CRLs(), after.trust.CRLs()))...)
	if was, is := before.rules, after.rules; is != nil && (was == nil || was.sum != is.sum) {
		change := "policy: " + is.text
		if was != nil {
			change += " (was " + was.text + ")"
		}
		told = append(told, change)
	} else if is == nil && was != nil {
		told = append(told, "policy: none, so that all may (was "+was.text+")")
	}
	return told
}

func leafName(c *x509.Certificate) string {
	return fmt.Sprintf("%x until %s", c.SerialNumber, c.NotAfter.UTC().Format(time.RFC3339))
}

// caName returns what tells a CA from others, its successor of the same subject among them.
func caName(c *x509.Certificate) string {
	return fmt.Sprintf("%s (serial %x)", c.Subject, c.SerialNumber)
}

// less names those of a that are not in b.
func less(what string, a, b []*x509.Certificate) (told []string) {
	for _, c := range a {
		if !slices.ContainsFunc(b, c.Equal) {
			told = append(told, what+caName(c))
		}
	}
	return told
}

// listName returns what tells a revocation list from others, but not from its successor.
func listName(l certbind.CRLInfo) string {
	name := l.Source + " of " + l.Issuer
	if !l.Scope.IsAll() {
		name += " for " + l.Scope.String()
	}
	return name
}

func listChanges(before, after []certbind.CRLInfo) (told []string) {
	old := make(map[string]string)
	for _, l := range before {
		old[listName(l)] = l.Version
	}
	for _, l := range after {
		name, version := listName(l), l.Version
		switch was, ok := old[name]; {
		case !ok:
			told = append(told, fmt.Sprintf("list added: %s, %s", name, version))
		case was != version:
			told = append(told, fmt.Sprintf("list %s: %s (was %s)", name, version, was))
		}
		delete(old, name)
	}
	for _, l := range before {
		if version, ok := old[listName(l)]; ok {
			told = append(told, fmt.Sprintf("list removed: %s, %s", listName(l), version))
			delete(old, listName(l))
		}
	}
	return told
}

// few shortens what is told of.
func few(told []string) []string {
	if more := len(told) - maxChanges; more > 0 {
		return append(slices.Clip(told[:maxChanges]), fmt.Sprintf("and %d more of these", more))
	}
	return told
}

// changedText returns changes for the log.
func changedText(changed []string) string {
	if len(changed) == 0 {
		return "nothing"
	}
	return strings.Join(changed, "; ")
}

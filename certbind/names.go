package certbind

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"crypto/x509"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// Bounds on names, in bytes (docs/spec/protocol.md, sections 5.2 to 5.4).
const (
	maxMachineName     = 253
	maxLabel           = 63
	maxAccount         = 64
	maxDomainAccount   = 128
	maxAttributes      = 16
	maxAttributeName   = 32
	maxAttributeValue  = 2048
	maxAttributesField = 3072
	maxSocketLabel     = 64
)

// ValidMachineName reports why s is not a machine name: an ASCII host name in lower case of at most 253 bytes, not an
// IP address, not localhost or under it, no trailing dot (docs/spec/protocol.md, section 5.2). The error holds no part of
// s.
func ValidMachineName(s string) error {
	if s == "" {
		return errors.New("a machine name is empty")
	}
	if len(s) > maxMachineName {
		return fmt.Errorf("a machine name has %d bytes, more than %d", len(s), maxMachineName)
	}
	var last string
	for label := range strings.SplitSeq(s, ".") {
		switch {
		case label == "" && strings.HasSuffix(s, "."):
			return errors.New("a machine name has no dot at its end")
		case label == "":
			return errors.New("a machine name has an empty label")
		case len(label) > maxLabel:
			return fmt.Errorf("a machine name has a label of %d bytes, more than %d", len(label), maxLabel)
		}
		if label[0] == '-' || label[len(label)-1] == '-' {
			return errors.New("a machine name has a label that begins or ends with a hyphen")
		}
		for i := range len(label) {
			if c := label[i]; !isLower(c) && !isDigit(c) && c != '-' {
				return errors.New("a machine name may hold only lower-case ASCII letters, digits, hyphens and dots")
			}
		}
		last = label
	}
	// A last label of digits alone would make the name an IPv4 address, or one that some resolver takes for one.
	if strings.Trim(last, "0123456789") == "" {
		return errors.New("the last label of a machine name is all digits, as in an IP address")
	}
	if last == "localhost" {
		return errors.New("localhost, and any name under it, is not a machine name: it means a different machine everywhere")
	}
	return nil
}

// ValidAccount reports why s is not an account name: 1 to 64 bytes of [a-z0-9_][a-z0-9._$+-]*; with allowDomain also
// '@' and '\' after the first byte, and up to 128 bytes (docs/spec/protocol.md, section 5.3). The error holds no part of
// s.
func ValidAccount(s string, allowDomain bool) error {
	limit := maxAccount
	if allowDomain {
		limit = maxDomainAccount
	}
	if s == "" {
		return errors.New("an account name is empty")
	}
	if len(s) > limit {
		return fmt.Errorf("an account name has %d bytes, more than %d", len(s), limit)
	}
	for i := range len(s) {
		c := s[i]
		switch {
		case isLower(c) || isDigit(c) || c == '_':
		case i == 0:
			return errors.New("an account name must begin with a lower-case ASCII letter, a digit or an underscore")
		case strings.IndexByte(".$+-", c) >= 0:
		case (c == '@' || c == '\\') && allowDomain:
		case c == '@' || c == '\\':
			return curedBy(SettingDomainAccounts,
				`an account name holds '@' or '\', which only machines that both allow domain accounts accept`)
		default:
			return errors.New("an account name may hold only lower-case ASCII letters, digits and any of . _ $ + -")
		}
	}
	return nil
}

// validAttributes checks what the attributes say (section 5.4); their number, sizes and order belong to the format.
func validAttributes(attrs []Attribute, allowDomain bool) error {
	for _, a := range attrs {
		if err := validAttribute(a, allowDomain); err != nil {
			return err
		}
	}
	return nil
}

func validAttribute(a Attribute, allowDomain bool) error {
	for i := range len(a.Name) {
		if c := a.Name[i]; !isLower(c) && (i == 0 || !isDigit(c) && c != '_' && c != '-') {
			return errors.New("an attribute's name is not of the form [a-z][a-z0-9_-]*")
		}
	}
	for i := range len(a.Value) {
		if c := a.Value[i]; c < 0x20 || c > 0x7e {
			return fmt.Errorf("the attribute %q holds a byte outside 0x20 to 0x7e", a.Name)
		}
	}
	switch a.Name {
	case "user", "machine":
		// The verifier adds these two itself; one that came signed would be taken for its own word.
		return fmt.Errorf("the attribute name %q is reserved for the verifier", a.Name)
	case "uid":
		if n, err := strconv.ParseUint(a.Value, 10, 32); err != nil || strconv.FormatUint(n, 10) != a.Value {
			return errors.New(`the attribute "uid" is not a decimal number below 2^32 without leading zeros`)
		}
	case "socket":
		const allowed = "abcdefghijklmnopqrstuvwxyz0123456789.-"
		if len(a.Value) < 1 || len(a.Value) > maxSocketLabel || strings.Trim(a.Value, allowed) != "" {
			return fmt.Errorf(`the attribute "socket" is not 1 to %d lower-case ASCII letters, digits, dots and hyphens`, maxSocketLabel)
		}
	case "groups":
		return validGroups(a.Value, allowDomain)
	}
	return nil
}

// hasName reports whether the machine name is one of the certificate's DNS SANs. A wildcard never matches, since no
// machine name holds a '*'.
func hasName(cert *x509.Certificate, machine string) bool {
	return slices.ContainsFunc(cert.DNSNames, func(san string) bool { return ascii.Lower(san) == machine })
}

// machineNames returns the certificate's DNS SANs that can name a machine, in ASCII lower case, each once.
func machineNames(cert *x509.Certificate) []string {
	var names []string
	for _, san := range cert.DNSNames {
		if n := ascii.Lower(san); ValidMachineName(n) == nil && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names
}

// noMachineName returns which names a certificate has that proves no machine's, and what is wrong with each.
func noMachineName(cert *x509.Certificate) string {
	const show = 8
	var wrong []string
	wildcards := 0
	for i, san := range cert.DNSNames {
		if strings.HasPrefix(san, "*.") {
			wildcards++
		}
		switch {
		case i < show:
			wrong = append(wrong, fmt.Sprintf("%.80q (%v)", san, ValidMachineName(ascii.Lower(san))))
		case i == show:
			wrong = append(wrong, fmt.Sprintf("%d more", len(cert.DNSNames)-show))
		}
	}
	switch {
	case wildcards > 0 && wildcards == len(cert.DNSNames):
		return "has only wildcard DNS names, and a wildcard names no machine"
	case len(wrong) > 0:
		return "has no DNS name (subject alternative name) that can name a machine: " + strings.Join(wrong, ", ")
	case len(cert.IPAddresses) > 0:
		return "has no DNS name (subject alternative name), only IP addresses, which name no machine"
	case cert.Subject.CommonName != "":
		return fmt.Sprintf("has no DNS name (subject alternative name), and the common name of its subject, %.80q, does not "+
			"count", cert.Subject.CommonName)
	}
	return "has no DNS name (subject alternative name)"
}

// under reports whether the machine name equals the suffix or is below it in the DNS.
func under(machine, suffix string) bool {
	return machine == suffix || strings.HasSuffix(machine, "."+suffix)
}

func isLower(c byte) bool { return 'a' <= c && c <= 'z' }
func isDigit(c byte) bool { return '0' <= c && c <= '9' }

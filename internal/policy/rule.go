package policy

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/names"
	"github.com/shared-altsd/shared-altsd/internal/purpose"
)

// A rule is one line that allows or denies.
type rule struct {
	place
	base                 string // of the file's name
	text                 string // as it was written
	allow                bool
	ways                 uint8 // a bit for each Direction
	local, user, machine pattern
	conditions
	atoms // of the index that it is in
}

// name is what the log calls a rule.
func (r *rule) name() string { return r.base + ":" + strconv.Itoa(r.line) }

// String returns the rule in the one form that it has.
func (r *rule) String() string {
	way := "any"
	switch r.ways {
	case 1 << In:
		way = "in"
	case 1 << Out:
		way = "out"
	}
	return fmt.Sprintf("%s %s %v %v@%v%s", verb(r.allow), way, r.local, r.user, r.machine, r.conditions.written())
}

// Conditions are what else a rule asks of a connection: all that are set. Two are equal if they ask the same.
type conditions struct {
	service string // "" for any
	eku     string // dotted, "" for any
	// by says by what the CA is named, "" for any; the value is in the form of the rule.
	by    caBy
	ca    [32]byte
	named string
	// hasKey and hasCert say that the peer's key or one of its certificates is named.
	hasKey, hasCert bool
	key             [32]byte
	cert            Certificate
	issuer          string
}

// caBy is how a rule names a CA.
type caBy uint8

const (
	anyCA caBy = iota
	byKey
	byName
)

var (
	oid = regexp.MustCompile(`^[0-2](\.(0|[1-9][0-9]{0,9}))+$`)
	// Parts of a distinguished name as pkix.Name writes it.
	relativeName = regexp.MustCompile(`^[0-9A-Za-z.]+=`)
	caSerial     = regexp.MustCompile(` \(serial [0-9a-f]+\)$`)
)

// hold reports whether the conditions hold of a connection.
func (n *conditions) hold(c *Connection) bool {
	if n.service != "" && n.service != c.Service && names.ServicePrefix+n.service != c.Service ||
		n.eku != "" && !slices.Contains(c.Peer.EKUs, n.eku) {
		return false
	}
	if n.by == byKey && n.ca != c.Peer.CAKey || n.by == byName && n.ca != c.Peer.CAName {
		return false
	}
	return (!n.hasKey || n.key == c.Peer.Key) && (!n.hasCert || slices.Contains(c.Peer.Certificates, n.cert))
}

// ofCertificate reports whether something is asked of the peer's certificate.
func (n *conditions) ofCertificate() bool {
	return n.eku != "" || n.by != anyCA || n.hasKey || n.hasCert
}

// written returns the conditions behind a blank each, in one order.
func (n *conditions) written() string {
	var b strings.Builder
	if n.service != "" {
		b.WriteString(" service=" + n.service)
	}
	if n.eku != "" {
		b.WriteString(" eku=" + n.eku)
	}
	switch n.by {
	case byKey:
		fmt.Fprintf(&b, " ca=%x", n.ca)
	case byName:
		b.WriteString(` ca="` + n.named + `"`)
	}
	if n.hasKey {
		fmt.Fprintf(&b, " key=%x", n.key)
	}
	if n.hasCert {
		b.WriteString(" cert=" + n.cert.Serial + `:"` + n.issuer + `"`)
	}
	return b.String()
}

// add reads one condition.
func (n *conditions) add(token string, denied bool) error {
	name, value, found := strings.Cut(token, "=")
	value = strings.ReplaceAll(value, `"`, "")
	known := "service=, eku= and ca="
	if denied {
		known += ", key= and cert="
	}
	if !found {
		return fmt.Errorf("%.80q is no condition: write NAME=VALUE of %s, a value with blanks in double quotes, and # "+
			"before a remark",
			token, known)
	}
	var twice bool
	var err error
	switch name {
	case "service":
		twice = n.service != ""
		n.service, err = serviceName(value)
	case "eku":
		twice = n.eku != ""
		n.eku, err = usage(value)
	case "ca":
		twice = n.by != anyCA
		err = n.setCA(value)
	case "key", "cert":
		if !denied {
			return fmt.Errorf("%s= belongs to what is denied at once: 'shared-altsd deny' takes keys and certificates, and "+
				"a policy goes by names and CAs", name)
		}
		if name == "key" {
			twice, n.hasKey = n.hasKey, true
			n.key, err = keyHash(value)
			break
		}
		twice, n.hasCert = n.hasCert, true
		err = n.setCert(value)
	default:
		return fmt.Errorf("there is no condition %.80q: write %s", name+"=", known)
	}
	if err == nil && twice {
		err = errors.New("it stands there twice: write a rule for each value")
	}
	if err != nil {
		return fmt.Errorf("the condition %.120q: %w", token, err)
	}
	return nil
}

// serviceName checks an application protocol (docs/spec/protocol.md, section 6).
func serviceName(v string) (string, error) {
	switch {
	case strings.HasSuffix(v, "*"):
		return "", errors.New("a service is named whole: leave the condition out for every service")
	case v == "" || len(v) > 64 || strings.ContainsFunc(v, func(r rune) bool { return r < 0x21 || r > 0x7e }):
		return "", errors.New("a service is an application protocol, 1 to 64 visible characters of ASCII, such as grpc or 6432")
	}
	return v, nil
}

// usage reads an extended key usage.
func usage(v string) (string, error) {
	if dotted := purpose.Named(v); dotted != "" {
		return dotted, nil
	}
	if len(v) > 128 || !oid.MatchString(v) || strings.Count(v, ".") < 2 {
		return "", errors.New("it is no extended key usage: write shared-altsd, serverAuth, clientAuth, or numbers joined by dots, " +
			"such as 1.3.6.1.4.1.32473.1.1")
	}
	return v, nil
}

// hash reads the SHA-256 of a key.
func hash(v string) (sum [32]byte, ok bool) {
	b, err := hex.DecodeString(v)
	return sum, err == nil && copy(sum[:], b) == len(sum) && len(b) == len(sum)
}

func keyHash(v string) ([32]byte, error) {
	sum, ok := hash(v)
	if !ok {
		return sum, errors.New("it is no key: write the SHA-256 of the certificate's public key (SubjectPublicKeyInfo), 64 " +
			"hexadecimal digits")
	}
	return sum, nil
}

func (n *conditions) setCA(v string) error {
	if sum, ok := hash(v); ok {
		n.by, n.ca = byKey, sum
		return nil
	}
	if m := caSerial.FindString(v); m != "" {
		return fmt.Errorf("write it without%s, since the CA's successor has the same name; for this one alone write the "+
			"SHA-256 of its public key, 64 hexadecimal digits", m)
	}
	if err := distinguishedName(v); err != nil {
		return fmt.Errorf("it is neither the SHA-256 of a CA's public key, 64 hexadecimal digits, nor its name: %w", err)
	}
	n.by, n.ca, n.named = byName, NameHash(v), v
	return nil
}

func (n *conditions) setCert(v string) error {
	serial, issuer, found := strings.Cut(v, ":")
	if !found {
		return errors.New(`it names no issuer: write SERIAL:"ISSUER", as status and the log have them`)
	}
	serial = ascii.Lower(serial)
	if serial == "" || len(serial) > 64 || strings.Trim(serial, "0123456789abcdef") != "" {
		return errors.New("the serial number is not hexadecimal: write it as status and the log have it, without 0x and colons")
	}
	if serial = strings.TrimLeft(serial, "0"); serial == "" {
		serial = "0"
	}
	if err := distinguishedName(issuer); err != nil {
		return fmt.Errorf("the issuer: %w", err)
	}
	n.cert, n.issuer = Certificate{serial, NameHash(issuer)}, issuer
	return nil
}

// distinguishedName refuses names in another form than that of status and the log: they would never match.
func distinguishedName(v string) error {
	const cure = "write it as status and the log have it, such as \"CN=Example CA,O=Example\""
	if strings.HasSuffix(v, "...") && len(v) > 250 {
		return errors.New("the log has cut the name short: deny the key (key=), or take the name from the certificate")
	}
	part := 0
	for i := 0; i <= len(v); i++ {
		switch {
		case i < len(v) && v[i] == '\\':
			i++ // what follows stands for itself
		case i >= len(v) || v[i] == ',' || v[i] == '+':
			if !relativeName.MatchString(v[part:min(i, len(v))]) {
				return fmt.Errorf("%.80q is no part of a distinguished name: %s", v[part:min(i, len(v))], cure)
			}
			part = i + 1
		}
	}
	return nil
}

package certbind

import (
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// Machines for which DNS vouches, and no CA (docs/spec/protocol.md, section 5.7).

// An Unresolved says that all but DNS speaks for a peer, and that the outcome is its answer's to decide. Whoever takes it for
// a refusal is right for now: it is one of code DNSUnknown.
type Unresolved struct {
	// Claimed is whom the statement names, which the key of the leaf has signed: proved is nothing, since anybody can have
	// made both.
	Claimed *Peer
}

func (u *Unresolved) Error() string { return u.Unwrap().Error() }

// Unwrap returns the refusal that it is as long as nobody has asked.
func (u *Unresolved) Unwrap() error {
	return reason.Errorf(reason.DNSUnknown, "DNS has not been asked about machine %q, for which it alone vouches here", u.Claimed.Machine)
}

// newDNSGroup checks what names DNS is to vouch for.
func newDNSGroup(g caGroup, ca CA) (caGroup, error) {
	switch {
	case len(ca.PEM) > 0 || ca.System:
		return g, errors.New("names are under DNS or under CAs, not both: give it either")
	case len(g.names) == 0:
		return g, curedBy(SettingCAs, "by DNS every signed domain of the world would be let in; limit it to names")
	}
	for _, n := range g.names {
		if suffix, _ := publicsuffix.PublicSuffix(n); suffix == n {
			return g, curedBy(SettingCAs, "anybody can have a name under %q, which is a public suffix; limit it to a domain of your own", n)
		}
		below := "x." + n
		if suffix, _ := publicsuffix.PublicSuffix(below); suffix == below {
			return g, curedBy(SettingCAs, "the names under %q are public suffixes, under which anybody can have a name; limit it to a "+
				"domain of your own", n)
		}
	}
	g.dns = true
	return g, nil
}

// checkScopes refuses a name that is both DNS's and a CA's: the longest match decides, and there would be none.
func (t *Trust) checkScopes() error {
	owner := make(map[string]*caGroup)
	for i := range t.groups {
		g := &t.groups[i]
		for _, n := range g.names {
			if o := owner[n]; o != nil && o.dns != g.dns {
				return curedBy(SettingCAs, "the names %q are given to %s and to %s, but machines are under DNS or under CAs, never "+
					"both; leave out one of the two, or give one of them a longer name", n, o.source, g.source)
			}
			owner[n] = g
		}
	}
	return nil
}

// UnderDNS reports whether DNS alone vouches for a machine, and no CA: of all limits to names, the longest that the name is
// equal to or under is DNS's.
func (t *Trust) UnderDNS(machine string) bool {
	if t == nil {
		return false
	}
	longest, dns := 0, false
	for i := range t.groups {
		g := &t.groups[i]
		for _, n := range g.names {
			if len(n) > longest && under(machine, n) {
				longest, dns = len(n), g.dns
			}
		}
	}
	return dns
}

// DNSNames returns the limits within which DNS vouches for machines, in no order.
func (t *Trust) DNSNames() (names []string) {
	for _, g := range t.groups {
		if g.dns {
			names = append(names, g.names...)
		}
	}
	return names
}

// Branch returns of a machine's name the part down to one label below the longest of the limits that it is under: what is below
// that may all be one zone, and one stranger's.
func Branch(machine string, limits []string) string {
	longest := ""
	for _, l := range limits {
		if strings.HasSuffix(machine, "."+l) && len(l) > len(longest) {
			longest = l
		}
	}
	if longest == "" {
		return machine
	}
	above := strings.TrimSuffix(machine, "."+longest)
	return above[strings.LastIndexByte(above, '.')+1:] + "." + longest
}

// vouches reports whether the CAs of a group may vouch for a machine.
func (t *Trust) vouches(g *caGroup, machine string) bool {
	return !g.dns && g.vouchesFor(machine) && !t.UnderDNS(machine)
}

// verifyDNS is verify from step 4 on for a machine under DNS: everything that needs no answer comes before it.
func (t *Trust) verifyDNS(id *Identity, st *Statement, leaf *x509.Certificate, answer *Answer, now time.Time) (*outcome, error) {
	// Steps 4 and 5; how long the certificate is good for is DNS's to say.
	if err := checkStatementTime(st, now); err != nil {
		return nil, err
	}
	if err := t.checkNames(st, leaf); err != nil {
		return nil, err
	}
	// Steps 6 and 7.
	if t.isAnchor(leaf) {
		return nil, reason.Errorf(reason.CertificateUnacceptable,
			"the peer's certificate has the key of a trusted CA; it needs one of its own")
	}
	if !validSignature(leaf.PublicKey, id.Statement, id.Signature) {
		return nil, errSignature
	}
	// Step 8.
	peer := Peer{Machine: st.Machine, Account: st.Account, Attributes: st.Attributes, Leaf: leaf, DNS: true,
		Path: []*x509.Certificate{leaf}, trust: t, NotAfter: st.NotAfter}
	if answer == nil || answer.Machine != st.Machine || now.After(answer.Until) {
		peer.Attributes = slices.Clone(peer.Attributes)
		return nil, &Unresolved{Claimed: &peer}
	}
	if err := answer.Vouches(leaf); err != nil {
		return nil, err
	}
	peer.NotAfter, peer.memo = earlier(st.NotAfter, answer.Until), new(memo)
	return &outcome{peer: peer, group: sha256.Sum256([]byte("machine under DNS: " + st.Machine)), static: st.StaticKey,
		notBefore: st.NotBefore}, nil
}

// Vouches returns nil if a record vouches for the certificate, else a *reason.Error, UnknownCA, which says why none does.
func (a *Answer) Vouches(cert *x509.Certificate) error {
	return a.vouches(func(r TLSA) bool { return r.Matches(cert) })
}

func (a *Answer) vouches(matches func(TLSA) bool) error {
	if slices.ContainsFunc(a.Records, matches) {
		return nil
	}
	where := strings.TrimSuffix(TLSAOwner(a.Machine), ".")
	switch {
	case len(a.Records) == 0:
		return reason.Errorf(reason.UnknownCA, "DNS has no TLSA record at %s: publish there what `shared-altsd tlsa` prints on that machine",
			where)
	case !slices.ContainsFunc(a.Records, TLSA.Usable):
		return reason.Errorf(reason.UnknownCA, "none of the %d TLSA records at %s can vouch for a machine (usage 3, selector 0 or 1, "+
			"matching type 0 to 2): publish there what `shared-altsd tlsa` prints on that machine", len(a.Records), where)
	}
	return reason.Errorf(reason.UnknownCA, "none of the %d TLSA records at %s is of the certificate that the machine uses, or of its "+
		"key: publish there what `shared-altsd tlsa` prints on that machine", len(a.Records), where)
}

// proves reports whether a certificate has the machine's name. Where DNS vouches, the only common name of a certificate
// without any subject alternative name serves as well: there DNS has said whose it is.
func (t *Trust) proves(cert *x509.Certificate, machine string) bool {
	return hasName(cert, machine) || commonName(cert) == machine && t.UnderDNS(machine)
}

// names returns the names under which a machine can go by a certificate.
func (t *Trust) names(cert *x509.Certificate) []string {
	if cn := commonName(cert); cn != "" && t.UnderDNS(cn) {
		return []string{cn}
	}
	return machineNames(cert)
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// commonName returns what could name a machine in a certificate without subject alternative names, in ASCII lower case: the
// only common name of its subject, "" if there is none.
func commonName(cert *x509.Certificate) string {
	if _, ok := extension(cert, oidSubjectAltName); ok {
		return ""
	}
	name, found := "", false
	for _, n := range cert.Subject.Names {
		if !n.Type.Equal(oidCommonName) {
			continue
		}
		if found {
			return ""
		}
		found = true
		s, _ := n.Value.(string)
		if name = ascii.Lower(s); ValidMachineName(name) != nil {
			return ""
		}
	}
	return name
}

// Prints are the digests of a certificate and of its key: enough to hold TLSA records against them.
type Prints struct {
	Cert, Key       [sha256.Size]byte
	Cert512, Key512 [sha512.Size]byte
}

// NewPrints returns a certificate's.
func NewPrints(cert *x509.Certificate) *Prints {
	spki := cert.RawSubjectPublicKeyInfo
	return &Prints{Cert: sha256.Sum256(cert.Raw), Key: sha256.Sum256(spki), Cert512: sha512.Sum512(cert.Raw), Key512: sha512.Sum512(spki)}
}

// match reports whether a record is usable and vouches for the certificate.
func (p *Prints) match(r TLSA) bool {
	if !r.Usable() {
		return false
	}
	short, long := p.Cert, p.Cert512
	if r.Selector == SelectorSPKI {
		short, long = p.Key, p.Key512
	}
	switch r.Matching {
	case MatchingFull:
		return sha256.Sum256(r.Data) == short
	case MatchingSHA256:
		return [sha256.Size]byte(r.Data) == short
	}
	return [sha512.Size]byte(r.Data) == long
}

// Disowned reports why a path by which a machine under DNS was let is refused by what DNS says now, nil if it is not.
func (a *Answer) Disowned(p Path) error {
	if p.DNS == nil || p.Machine != a.Machine {
		return nil // it is about another machine
	}
	return a.vouches(p.DNS.match)
}

// standsDNS is the part of Stands for machines that are under DNS, or were.
func (t *Trust) standsDNS(p Path) error {
	switch dns := t.UnderDNS(p.Machine); {
	case dns && p.DNS == nil:
		return reason.Errorf(reason.UnknownCA, "%w", curedBy(SettingCAs,
			"machine %q is under DNS by now, and no CA vouches for it any more; connect again", p.Machine))
	case !dns && p.DNS != nil:
		return reason.Errorf(reason.UnknownCA, "%w", curedBy(SettingCAs, "DNS vouches for machine %q here no more", p.Machine))
	}
	return nil
}

// checkOwnDNS does to this machine's own certificate what a peer does that asks DNS, as far as it can be told without.
func (t *Trust) checkOwnDNS(leaf *x509.Certificate) error {
	if t.isAnchor(leaf) {
		return reason.Errorf(reason.CertificateUnacceptable, "the certificate of the machine has the key of a trusted CA; it needs one of its own")
	}
	return nil
}

var errSignature = reason.Errorf(reason.StatementInvalid,
	"the signature of the peer's statement is not that of the key of its certificate")

// checkStatementTime does what of step 4 is about the statement alone.
func checkStatementTime(st *Statement, now time.Time) error {
	switch {
	case now.Before(st.NotBefore):
		return reason.Errorf(reason.StatementExpired, "the peer's statement is valid only from %s; check both clocks", stamp(st.NotBefore))
	case now.After(st.NotAfter):
		return reason.Errorf(reason.StatementExpired, "the peer's statement has expired at %s; check both clocks", stamp(st.NotAfter))
	case st.NotAfter.Sub(st.NotBefore) > maxWindow:
		return reason.Errorf(reason.StatementExpired, "the peer's statement is made for longer than %v", maxWindow)
	}
	return nil
}

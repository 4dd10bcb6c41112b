package certbind

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// A Fault is one thing that is wrong with a machine's credential or trust.
type Fault struct {
	What, Cure string
	// Setting is what the program can change by way of a cure, 0 if nothing.
	Setting Setting
	// Warning is true if peers accept the machine nevertheless, now.
	Warning bool
}

// String returns both in one line.
func (f Fault) String() string { return f.What + "; " + f.Cure }

const fetchList = "fetch a new revocation list from the CA, and reload"

// cures says, for each code that verifyChain refuses with, what the owner of the certificate can do.
var cures = map[reason.Code]string{
	reason.UnknownCA: "add the intermediate certificates to the credentials, or trust the CA that issued the " +
		"certificate, not limited to other names",
	reason.CertificateExpired:     "renew the certificate, and reload",
	reason.CertificateNotYetValid: "set this machine's clock, or wait",
	reason.CertificateRevoked:     "have a new certificate issued for a new key",
	reason.RevocationUnknown:      fetchList + ", or accept lists that are out of date",
	reason.CertificateUnacceptable: "have the certificate issued for a leaf, with digitalSignature, serverAuth and what " +
		"else is named here",
	reason.MachineNameMismatch: "have it issued by a CA whose name constraints permit every name in it",
}

// settingCures are those of cures that say more where a setting is known.
var settingCures = map[Setting]string{
	SettingLists: "give the CA's other lists as well",
	SettingCompleteList: "give the CA's other lists as well, or have it name the list's place in its certificates; or, if " +
		"the list has all that it issues, say so",
}

// toldOfLists are the settings of what Trust.check says of a list, whether it is of this machine's own CA or not.
var toldOfLists = map[Setting]bool{SettingCRLStaleOK: true, SettingOlderList: true, SettingForgetList: true}

// Check returns what peers with the same trust would say of a machine's credential at a time, and nothing of what ends
// later: each fault with its cure, none if all is well. name is the machine's name, or empty to have it chosen from
// those of the certificate; a nil trust leaves out what needs one.
func Check(c *Credential, name string, t *Trust, now time.Time) []Fault {
	var faults []Fault
	fault := func(s Setting, cure, format string, args ...any) {
		faults = append(faults, Fault{What: fmt.Sprintf(format, args...), Cure: cure, Setting: s})
	}
	if name == "" {
		var err error
		if name, err = c.MachineName(t, "", ""); err != nil {
			fault(SettingMachineName, "name the machine, or have the certificate issued with its DNS name alone", "%v", err)
		}
	} else if err := ValidMachineName(name); err != nil {
		fault(SettingMachineName, "choose another machine name", "%v", err)
		name = ""
	} else if !t.proves(c.Leaf, name) {
		fault(SettingMachineName, "have the certificate issued with that name, or choose one of its names",
			"the certificate does not have the machine's name, %q, among its DNS names (%s)",
			name, listNames(t.names(c.Leaf)))
		name = ""
	}
	if c.Outside() {
		// Whoever asks is told of Failure: a signature of hardware is not made for each.
	} else if err := c.Prove(context.Background()); errors.Is(err, errWiped) {
		// It went out of use just now.
	} else if err != nil {
		fault(0, "give the key that the certificate was made for, and that works", "%v", err)
	}
	switch leaf := c.Leaf; {
	case now.After(leaf.NotAfter):
		fault(0, cures[reason.CertificateExpired], "the certificate has expired at %s", stamp(leaf.NotAfter))
	case now.Before(leaf.NotBefore):
		fault(0, cures[reason.CertificateNotYetValid], "the certificate is valid only from %s", stamp(leaf.NotBefore))
	}
	if t == nil {
		return faults
	}
	if err := checkOwnChain(c, name, t, now); err != nil && !toldOfLists[SettingOf(err)] {
		setting, cure := SettingOf(err), cures[reason.Of(err)]
		if c := settingCures[setting]; c != "" {
			cure = c
		}
		fault(setting, cure, "%v", err)
	}
	return append(faults, t.check(now)...)
}

// checkOwnChain does to the machine's own chain what a peer does in steps 2 and 6 of section 5.5. Without a name
// there is no telling which CAs may vouch, and only the leaf is judged. Where DNS vouches there is no chain.
func checkOwnChain(c *Credential, name string, t *Trust, now time.Time) error {
	certs, err := parseCertificates(c.Chain)
	if err != nil {
		return err
	}
	if name == "" {
		return t.checkLeaf(certs[0])
	}
	if t.UnderDNS(name) {
		return t.checkOwnDNS(certs[0])
	}
	_, err = t.verifyChain(certs, name, now)
	// The leaf's own time has been told already.
	var refusal *reason.Error
	if errors.As(err, &refusal) && (now.After(c.Leaf.NotAfter) || now.Before(c.Leaf.NotBefore)) &&
		(refusal.Code == reason.CertificateExpired || refusal.Code == reason.CertificateNotYetValid) {
		return nil
	}
	return err
}

// check returns the CAs that are out of their time and the revocation lists that are out of date: peers of theirs are
// refused here.
func (t *Trust) check(now time.Time) []Fault {
	var faults []Fault
	for _, g := range t.groups {
		for _, ca := range g.certs {
			if now.After(ca.NotAfter) {
				faults = append(faults, Fault{
					What:    fmt.Sprintf("the CA %q in %s has expired at %s", ca.Subject, g.source, stamp(ca.NotAfter)),
					Cure:    "remove it, or replace it by its successor",
					Setting: SettingCAs,
					Warning: true,
				})
			} else if now.Before(ca.NotBefore) {
				faults = append(faults, Fault{
					What:    fmt.Sprintf("the CA %q in %s is valid only from %s", ca.Subject, g.source, stamp(ca.NotBefore)),
					Cure:    cures[reason.CertificateNotYetValid],
					Warning: true,
				})
			}
		}
	}
	for _, all := range t.behind {
		for _, b := range all {
			faults = append(faults, Fault{What: b.String(), Cure: fetchList + ", or say that this is meant", Setting: b.setting()})
		}
	}
	for _, l := range t.crls {
		if l.stale(now) {
			f := Fault{
				What:    fmt.Sprintf("the revocation list %s was due to be replaced at %s", l.source, stamp(l.list.NextUpdate)),
				Cure:    cures[reason.RevocationUnknown],
				Setting: SettingCRLStaleOK,
			}
			if t.crlStaleOK {
				f.Cure, f.Setting, f.Warning = fetchList, 0, true
			}
			faults = append(faults, f)
		} else if now.Before(l.list.ThisUpdate) {
			faults = append(faults, Fault{
				What:    fmt.Sprintf("the revocation list %s is from the future, %s", l.source, stamp(l.list.ThisUpdate)),
				Cure:    "set this machine's clock",
				Warning: true,
			})
		}
	}
	return faults
}

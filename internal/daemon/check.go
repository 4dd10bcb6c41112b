package daemon

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/expiry"
)

// Check writes what a daemon with the same CAs would say of a machine with these files, and reports whether it would
// accept it.
func Check(w io.Writer, f *Files) (accepted bool, err error) {
	f.findListDirs()
	l, err := f.load("")
	if err != nil {
		return false, err
	}
	memory := ""
	var passed []certbind.PassedOver
	if len(f.CRLs) > 0 {
		marks, err := readMarks(f.stateDir())
		var wrong error
		if l.trust, passed, wrong = f.offer(l.trust, l.credential.Chain, marks, nil); wrong != nil {
			return false, wrong
		}
		switch {
		case err != nil: // it may be the daemon's, whom this account does not believe
			l.warn("the daemon's memory of revocation lists was not looked at: " + err.Error())
		case f.stateDir() == "":
			memory = "no memory (--state-dir): after a restart an older list than now would be taken"
		default:
			memory = fmt.Sprintf("%d remembered in %s", len(marks), f.stateDir())
			l.trust = f.demand(l.trust, marks)
		}
	}
	now := time.Now()
	leaf := l.credential.Leaf
	fmt.Fprintf(w, "machine   %s\n", l.name)
	fmt.Fprintf(w, "names     %s\n", strings.Join(leaf.DNSNames, " "))
	fmt.Fprintf(w, "key       %v", leaf.PublicKeyAlgorithm)
	if place := f.keyPlace(); place != "" {
		fmt.Fprintf(w, ", %s", place)
		ctx, cancel := context.WithTimeout(context.Background(), proveSigner)
		l.credential.Prove(ctx)
		cancel()
	}
	fmt.Fprintln(w)
	fmt.Fprintf(w, "serial    %x\n", leaf.SerialNumber)
	fmt.Fprintf(w, "issuer    %q\n", leaf.Issuer.String())
	fmt.Fprintf(w, "valid     %s to %s%s\n", leaf.NotBefore.UTC().Format(time.RFC3339),
		leaf.NotAfter.UTC().Format(time.RFC3339),
		expiry.Remaining(leaf.NotAfter.Sub(now)))
	if memory != "" {
		fmt.Fprintf(w, "lists     %s\n", memory)
		checkLists(w, l.trust, passed, now)
	}
	for _, warning := range l.warnings {
		fmt.Fprintf(w, "warning   %s\n", warning)
	}
	accepted = true
	faults, soon := ownFaults(l.credential, l.name, l.trust, now)
	if f := signerFault(l.credential, true); f != nil {
		faults = append(faults, *f)
	}
	faults = append(faults, shortLife(leaf)...)
	faults = append(faults, checkDNS(w, f.resolver(), l)...)
	if f.MachineName == "" {
		faults = append(faults, anotherHosts(leaf, hostFQDN())...)
	}
	soon = append(soon, checkAccounts(f.accounts(nil))...)
	for _, fault := range append(faults, soon...) {
		kind := "fault"
		if fault.Warning {
			kind = "warning"
		} else {
			accepted = false
		}
		fmt.Fprintf(w, "%-9s %s\n          cure: %s\n", kind, cli.OneLine(fault.What), cli.OneLine(fault.Cure))
	}
	who := "CAs"
	if l.trust.UnderDNS(l.name) {
		who = "--ca"
	}
	if !accepted {
		fmt.Fprintf(w, "result    peers would refuse this machine\n")
		return false, nil
	}
	fmt.Fprintf(w, "result    a peer with the same %s would accept this machine as %s\n", who, l.name)
	return true, nil
}

// shortLife warns of a certificate that lives for less than what clocks may differ by at both of its ends.
func shortLife(leaf *x509.Certificate) []certbind.Fault {
	const tolerance = 10 * time.Minute
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	if life >= tolerance {
		return nil
	}
	return []certbind.Fault{{Warning: true,
		What: fmt.Sprintf("the certificate lives for %v: peers whose clocks differ by as much refuse it near its ends", life),
		Cure: "keep the clocks of all machines right with NTP, or have it issued for an hour and renewed before it ends"}}
}

// anotherHosts warns where the certificate has not the name of the host among its own: it may be a copy of another
// host's.
func anotherHosts(leaf *x509.Certificate, host string) []certbind.Fault {
	host = strings.TrimSuffix(ascii.Lower(host), ".")
	if host == "" || host == "localhost" || strings.HasPrefix(host, "localhost.") {
		return nil
	}
	for _, name := range leaf.DNSNames {
		name = ascii.Lower(name)
		first, _, _ := strings.Cut(name, ".")
		if name == host || first == host { // a host that knows no domain of its own
			return nil
		}
	}
	return []certbind.Fault{{Warning: true,
		What: fmt.Sprintf("this host is %q, which is none of the certificate's names: it may be another host's", host),
		Cure: "give this host's own certificate, or say that the name is meant (--machine-name)"}}
}

package ping

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/reach"
)

// diagnose returns in words what a failure at a step most likely means and what to do.
func diagnose(step, address string, err error) string {
	host, port, _ := net.SplitHostPort(address)
	var dns *net.DNSError
	var refusal *altscreds.HandshakeError
	var silent *reach.Error
	switch {
	case errors.As(err, &silent):
		return "This machine's own daemon is what fails, before anything was sent: " + silent.Next + "."
	case errors.Is(err, altscreds.ErrNoDaemon): // it has gone in this moment
		return "This machine's daemon could not be used. 'systemctl status shared-altsd' and 'journalctl -u shared-altsd' " +
			"show why; --socket names another socket."
	case errors.As(err, &dns):
		return fmt.Sprintf("The name %q has no address. Check its spelling, DNS and /etc/hosts on this machine.", host)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Sprintf("The machine is there but nothing listens on port %s. Start 'shared-altsd pong :%s' or the "+
			"server there; a firewall that rejects looks the same.", port, port)
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
		return "This machine cannot use an address of that kind: it has no IPv6, say, and the name leads to nothing else. Dial " +
			"another address, or mend the name (localhost: /etc/hosts) or this machine's network."
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "There is no way to the machine: check routes and the network on both sides."
	case step == StepConnect:
		return "No connection in time: most often a firewall on the way, or the machine is down."
	case errors.As(err, &refusal) && refusal.Reason != "":
		return diagnoseRefusal(refusal, host)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return "The peer hung up in the middle. Either it does not speak ALTS (another service listens on this port), or " +
			"its own application or daemon refused this machine: the log of the daemon there, under the same time, says why."
	case errors.Is(err, altscreds.ErrTimeout), errors.Is(err, os.ErrDeadlineExceeded):
		switch step {
		case StepStart:
			return "This machine's own daemon did not begin: it is overloaded or hangs. 'shared-altsd status' asks it."
		case StepAnswer:
			return "The peer took the connection but does not answer: it does not speak ALTS (an HTTP server waits like " +
				"this), or the daemon on that machine is down or hangs. Run 'shared-altsd status' there."
		}
		return "The peer stopped answering in the middle. Run 'shared-altsd status' on both machines; a firewall that " +
			"drops large packets (path MTU) looks the same."
	}
	return "The log of this machine's daemon has more: 'journalctl -u shared-altsd'."
}

// diagnoseRefusal explains a refusal by its reason, in the view of whoever has to act.
func diagnoseRefusal(e *altscreds.HandshakeError, host string) string {
	refuser, refused := "this machine", "the other machine"
	if e.ByPeer {
		refuser, refused = refused, refuser
	}
	switch e.Reason {
	case altscreds.ReasonUnknownCA:
		return fmt.Sprintf("On %s no --ca vouches for the certificate of %s under its name. Give the CA that issued it "+
			"there, and see that %s sends its intermediate certificates ('shared-altsd check' there).", refuser, refused,
			refused)
	case altscreds.ReasonCertificateExpired:
		return fmt.Sprintf("The certificate of %s has expired, or the clock of %s is ahead. Renew it and reload there; "+
			"'shared-altsd status' on both shows clocks and dates.", refused, refuser)
	case altscreds.ReasonCertificateNotYetValid:
		return fmt.Sprintf("For %s the certificate of %s is not valid yet: most often the clock of %s is behind. "+
			"'shared-altsd status' on both names a clock that is plainly wrong.", refuser, refused, refuser)
	case altscreds.ReasonCertificateRevoked:
		return fmt.Sprintf("The CA has revoked the certificate of %s: have a new one issued, for a new key.", refused)
	case altscreds.ReasonRevocationUnknown:
		return fmt.Sprintf("The revocation list on %s is out of date, or not for this certificate: fetch the CA's current "+
			"ones and reload there; the log there says which.", refuser)
	case altscreds.ReasonStatementExpired:
		return "The clocks of the two machines differ by more than five minutes: keep both right with NTP."
	case altscreds.ReasonTargetMismatch, altscreds.ReasonMachineNameMismatch:
		return fmt.Sprintf("The peer is not whom you asked for; the error names both. If it is whom you mean, say so with "+
			"--target-account or --target-machine, or dial a name that is in its certificate. If not, another account "+
			"listens there, or %q leads to another machine.", host)
	case altscreds.ReasonNoApplicationProtocol:
		return "The server speaks neither gRPC nor ping's own protocol: start 'shared-altsd pong' there to test the two " +
			"daemons."
	case altscreds.ReasonOwnCertificate:
		return fmt.Sprintf("The certificate of %s has expired or is not valid yet. Renew it, or set the clock, on %s; "+
			"'shared-altsd status' there shows both.", refuser, refuser)
	case altscreds.ReasonLocalAccount:
		return fmt.Sprintf("The account on %s may not take part: it has no name in the user database, or one that is not "+
			"allowed. 'shared-altsd whoami' under that account says which.", refuser)
	case altscreds.ReasonAccountUnacceptable:
		return fmt.Sprintf("%s does not accept the name of the account on %s; names with @ or a backslash need "+
			"--account-domain, or --allow-domain-accounts, on both.", capital(refuser), refused)
	case altscreds.ReasonMalformed, altscreds.ReasonDecryptionFailed, altscreds.ReasonUnsupportedVersion:
		return "What came from the peer is not this protocol: another service listens on this port, or something between " +
			"the machines changes the bytes, or one daemon is much older than the other ('shared-altsd --version' on both)."
	case altscreds.ReasonInternal:
		return fmt.Sprintf("The daemon of %s has a fault of its own, most often a user database that fails. Its log says "+
			"which, under the same handshake ID: 'journalctl -u shared-altsd' on %s.", refuser, refuser)
	case altscreds.ReasonTimedOut:
		return diagnose(StepAccepted, host, altscreds.ErrTimeout)
	case altscreds.ReasonOverloaded, altscreds.ReasonShuttingDown:
		return fmt.Sprintf("The daemon of %s is busy or stopping: try again.", refuser)
	}
	return fmt.Sprintf("The log of the daemon on %s says more, under the same handshake ID: "+
		"'journalctl -u shared-altsd'.", refuser)
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

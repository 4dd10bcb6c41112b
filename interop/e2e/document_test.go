package e2e

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

var update = flag.Bool("update", false, "write docs/refusals.md anew")

const documentPath = "../../docs/refusals.md"

// Where the parts of the document begin. Errors by their text are written by hand and held to the program by a test of docs;
// others are of interop/matrix.
const (
	errorsBegin = "\n## Errors by their text\n"
	casesBegin  = "\n## What is refused in a peer\n"
	othersBegin = "\n## How each library shows a refusal\n"
)

// reasons says of each reason which status a client of grpc-go gets, first where its own machine's daemon refused, then
// where the peer's did, and what to do about it. grpc-go turns the codes that it reserves for servers into INTERNAL.
var reasons = map[reason.Code]struct {
	own, peers codes.Code
	cure       string
}{
	reason.UnsupportedVersion:      {codes.Unauthenticated, codes.PermissionDenied, "Bring both machines to releases that share a version of the protocol; see `--min-version`."},
	reason.Malformed:               {codes.Unauthenticated, codes.PermissionDenied, "If the text names another protocol: use ALTS credentials at both ends, and check port and proxies. Else the other machine's daemon is at fault: upgrade it, and report it."},
	reason.DecryptionFailed:        {codes.Unauthenticated, codes.PermissionDenied, "Something between the two machines changes bytes or joins connections: look for proxies and load balancers that do."},
	reason.UnknownCA:               {codes.Unauthenticated, codes.PermissionDenied, "On the machine that refused, add the CA with `--ca` (or the name to its limit); on the other, put the intermediate certificates into `--credentials`. A certificate signed by itself is accepted where DNS vouches for it, and nowhere else: [dns.md](dns.md)."},
	reason.CertificateExpired:      {codes.Unauthenticated, codes.PermissionDenied, "Renew the certificate (`shared-altsd check` shows which); check both clocks. Near its end the peer's clock alone is enough: renew earlier."},
	reason.CertificateNotYetValid:  {codes.Unauthenticated, codes.PermissionDenied, "Check both clocks; wait until the certificate is valid by the peer's, too."},
	reason.CertificateRevoked:      {codes.Unauthenticated, codes.PermissionDenied, "Have a new certificate issued, with a new key. If the revocation is a mistake, the CA has to publish a new list."},
	reason.RevocationUnknown:       {codes.Unauthenticated, codes.PermissionDenied, "On the machine that refused, fetch the CA's current revocation lists, before they end: one is past its next update, older than one that was in force, or none is for this certificate (\"Lists for a part\": [operate.md](operate.md#reload-renewal-expiry)). `--crl-stale-ok` goes on with an old one, `--crl complete=FILE` with one at another place."},
	reason.CertificateUnacceptable: {codes.Unauthenticated, codes.PermissionDenied, "Have the certificate issued with a key of P-256, P-384, Ed25519 or RSA of 2048 to 4096 bits, with key usage digitalSignature, with no extended key usage, or serverAuth or clientAuth, or the purpose of `--require-eku` where that is set. It must not be a CA. `shared-altsd check` names what is wrong ([certificates.md](certificates.md))."},
	reason.StatementInvalid:        {codes.Unauthenticated, codes.PermissionDenied, "The other machine's daemon is at fault, or somebody uses what he captured. Restart it; if it stays, treat it as an attack."},
	reason.StatementExpired:        {codes.Unauthenticated, codes.PermissionDenied, "Check both clocks: a statement is made 5 minutes back, so that clocks may differ by as much."},
	reason.MachineNameMismatch:     {codes.Unauthenticated, codes.PermissionDenied, "Have the certificate issued with the machine's own DNS name (a wildcard names no machine), within the name constraints of its CA, or set `--machine-name` to a name that it has."},
	reason.AccountUnacceptable:     {codes.PermissionDenied, codes.PermissionDenied, "Rename the account, or set `--account-domain` or `--allow-domain-accounts` on both machines if its name has `@` or a backslash."},
	reason.TargetMismatch:          {codes.PermissionDenied, codes.PermissionDenied, "Name the account that the server really runs as, or dial a name that is in its certificate. If neither is wrong, somebody else has taken the port."},
	reason.NoApplicationProtocol:   {codes.Internal, codes.Internal, "The two applications do not speak the same protocol (gRPC's is `grpc`): check port and program."},
	reason.NoRecordProtocol:        {codes.Internal, codes.Internal, "Upgrade the older gRPC library: `ALTSRP_GCM_AES128_REKEY` is needed."},
	reason.NoRPCVersion:            {codes.Internal, codes.Internal, "Upgrade the older gRPC library."},
	reason.BadChoice:               {codes.Unauthenticated, codes.PermissionDenied, "The other machine's daemon is at fault: upgrade it, and report it."},
	reason.Overloaded:              {codes.ResourceExhausted, codes.ResourceExhausted, "Try again; find out who makes them (`status`), close connections that are not needed, or raise `--max-handshakes` and its kin."},
	reason.TimedOut:                {codes.DeadlineExceeded, codes.DeadlineExceeded, "The other machine, or its daemon, stopped answering, or its application accepts and does not go on: see its log, and what stands between (a firewall). Stock grpc-go waits for bytes of the peer's alone, so that its user reads the end of its own deadline instead (20 s in a client)."},
	reason.LocalAccount:            {codes.PermissionDenied, codes.PermissionDenied, "Run the application under an account that has one name in the user database, in lower case, and let it ask for no other identity than its own; give a socket with `account=` a name that nobody has ([names](operate.md#which-user-database-is-read))."},
	reason.ShuttingDown:            {codes.Unavailable, codes.Unavailable, "Try again: the daemon is being restarted. With systemd's socket unit callers wait instead."},
	reason.Internal:                {codes.Internal, codes.Unavailable, "Read the log of the daemon that refused: it is often the user database."},
	reason.DeniedByPolicy:          {codes.PermissionDenied, codes.PermissionDenied, "Ask the administrator of the machine that refused: the log there names the rule (`rule`)."},
	reason.DNSUnknown:              {codes.Unauthenticated, codes.PermissionDenied, "See that the records of this machine are published and signed, and that resolver and companion work where it was refused ([dns.md](dns.md), section 6)."},
	reason.OwnCertificate:          {codes.Unauthenticated, codes.Unavailable, "On the machine that refused, renew the certificate, or set the clock: `shared-altsd status` there shows both. The certificate of the other machine is not at fault."},
	unheardOf:                      {peers: codes.PermissionDenied},
}

// unheardOf is a reason that a later version may give.
const unheardOf reason.Code = 999

// uncoded are the reasons that the wire has no code for.
var uncoded = []struct{ name, status, reads, cure string }{
	{badRequest, " Internal", "its own daemon's text", "The application, or its gRPC library, asked for what the handshaker service does not offer; the text says what to change."},
	{"peer_closed", "", "in the log alone, as a rule", "The other side hung up: the log of its daemon says why. If that says accepted, its application has a list of its own (Envoy: `peer_service_accounts`)."},
	{"cancelled", "", "in the log alone, as a rule", "None: the application gave up by itself."},
}

// reasonsPart is how docs/refusals.md begins.
func reasonsPart() string {
	var b strings.Builder
	b.WriteString(`# Refusals

When a handshake is refused, the error that the application gets and a line in the log of the daemon that refused both
name the reason. This page is made from the tables of the end-to-end tests, each row of which is provoked over real
daemons (` + "`go test ./interop/e2e -run Document -update`" + `).

How to read an error:

<!-- example -->

    shared-altsd: this machine's daemon refused: TEXT (REASON); handshake ID
    shared-altsd: the peer's daemon refused: MEANING (REASON); handshake ID

- *This machine's daemon refused*: TEXT says what was wrong and what to do. The same text is in this machine's log.
- *The peer's daemon refused*: only the reason travels. The text is in the log of the other machine, under the same ID.
- A gRPC server shows its users no reason; look into the log of its machine's daemon.
- Refusals for one peer and reason are logged one by one five times a minute, and counted from then on.

## Reasons

The status is the one of gRPC's that a client of grpc-go gets: first if its own machine's daemon refused, then if the
peer's did. grpc-go turns INVALID_ARGUMENT and FAILED_PRECONDITION into INTERNAL.

| code | reason | status, own / peer's | what the refused side reads | cure |
|---|---|---|---|---|
`)
	for c := reason.UnsupportedVersion; c.Known(); c++ {
		r := reasons[c]
		fmt.Fprintf(&b, "| %d | `%s` | %v / %v | %s | %s |\n", c, c, r.own, r.peers, c.Meaning(), r.cure)
	}
	for _, r := range uncoded {
		fmt.Fprintf(&b, "| | `%s` |%s | %s | %s |\n", r.name, r.status, r.reads, r.cure)
	}
	return b.String()
}

// casesPart is what comes behind the errors by their text.
func casesPart() string {
	var b strings.Builder
	b.WriteString(casesBegin + `
Each is refused by the daemon of the side named, before its application learns anything of the peer.

| reason | what is wrong with the peer | refused by the daemon of the | the text holds |
|---|---|---|---|
`)
	who := map[side]string{both: "client, server", asClient: "server", asServer: "client"}
	for c := reason.UnsupportedVersion; c.Known(); c++ {
		for _, r := range refusals {
			if r.code == c {
				fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c, r.name, who[r.side], strings.TrimSpace(r.says))
			}
		}
		for _, r := range dnsRefusals {
			if r.code == c {
				fmt.Fprintf(&b, "| `%s` | under DNS: %s | %s | %s |\n", c, r.what, who[both], r.says)
			}
		}
	}
	b.WriteString(`
## What is refused to an application by its own machine's daemon

| reason | what is wrong | the text holds |
|---|---|---|
`)
	rows := slices.Clone(localRefusals)
	slices.SortStableFunc(rows, func(a, b localRefusal) int { return strings.Compare(a.why, b.why) })
	for _, r := range rows {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", r.why, r.name, r.says)
	}
	return b.String()
}

// The document is what the tables say, and no reason is left out.
func TestDocument(t *testing.T) {
	for c := reason.UnsupportedVersion; c.Known(); c++ {
		if reasons[c].cure == "" {
			t.Errorf("no cure for %v", c)
		}
	}
	got, err := os.ReadFile(documentPath)
	if err != nil {
		t.Fatal(err)
	}
	_, errors, _ := strings.Cut(string(got), errorsBegin)
	errors, others, _ := strings.Cut(errors, casesBegin)
	_, others, _ = strings.Cut(others, othersBegin)
	want := reasonsPart() + errorsBegin + errors + casesPart() + othersBegin + others
	if *update {
		if err := os.WriteFile(documentPath, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		got = []byte(want)
	}
	if string(got) != want {
		t.Errorf("%s is not what the tables of this package say; write it anew: go test ./interop/e2e -run Document -update",
			documentPath)
	}
}

// Every case has a name of its own.
func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range refusals {
		if seen[r.name] {
			t.Errorf("two cases are named %q", r.name)
		}
		seen[r.name] = true
	}
	for _, r := range localRefusals {
		if seen["local "+r.name] {
			t.Errorf("two local cases are named %q", r.name)
		}
		seen["local "+r.name] = true
	}
}

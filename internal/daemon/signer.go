package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/signer"
)

// signerPrefix is what --key begins with where the key is not in a file.
const signerPrefix = "signer:"

const (
	// askSigner is how long a signer may take to say which key it has, askAgain the same where it has said so before, and
	// proveSigner how long it may take to prove that.
	askSigner   = 30 * time.Second
	askAgain    = 5 * time.Second
	proveSigner = 30 * time.Second
	// proveInterval is how often a signer that signs is asked to prove it; one that does not is at each announceInterval.
	proveInterval = 5 * time.Minute
)

// CheckKey reports what is wrong with the value of --key.
func CheckKey(v string) error {
	path, ok := SignerSocket(v)
	if !ok {
		return nil
	}
	return localsock.CheckPath(path)
}

// SignerSocket returns the socket of the signer that a value of --key names, if it names one.
func SignerSocket(key string) (path string, ok bool) { return strings.CutPrefix(key, signerPrefix) }

// signerPath returns the socket of the signer that has the key.
func (f *Files) signerPath() (path string, ok bool) { return SignerSocket(f.Key) }

// keyPlace says where the key is that a signer has, for people; "" if the daemon has it.
func (f *Files) keyPlace() string {
	path, ok := f.signerPath()
	switch {
	case !ok:
		return ""
	case f.signer == nil || f.signer.Where() == "":
		return "with the signer at " + path
	}
	return fmt.Sprintf("in %s, with the signer at %s", f.signer.Where(), path)
}

// loadCertificates reads the certificates of a key that a signer has.
func (f *Files) loadCertificates(l *loaded) (*certbind.Credential, error) {
	key, err := f.signerKey(l)
	if err != nil {
		return nil, fmt.Errorf("--key %s: %w", f.Key, err)
	}
	certPEM := f.given
	if certPEM == nil {
		var warning string
		if certPEM, warning, err = ReadKeyFile(f.Credentials); err != nil {
			return nil, fmt.Errorf("--credentials: %w", err)
		}
		l.warn(warning)
	}
	c, err := certbind.ParseCertificates(certPEM, key)
	if err != nil {
		return nil, fmt.Errorf("%s with --key %s: %w", f.credentialSource(), f.Key, err)
	}
	return c, nil
}

// signerKey returns the signer's key: as it was known before, where that will do or the signer does not answer. So no list
// waits for a signer.
func (f *Files) signerKey(l *loaded) (certbind.StatementSigner, error) {
	if f.signer == nil {
		path, _ := f.signerPath()
		f.signer = signer.NewClient(path)
	}
	known, limit := f.signer.Known(), askSigner
	if known != nil {
		if f.sameKey {
			return known, nil
		}
		limit = askAgain
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	key, err := f.signer.Key(ctx)
	if err != nil && known != nil {
		l.warn("the signer did not say which key it has, and is taken to have the one of before: " + err.Error())
		return known, nil
	}
	return key, err
}

// signerFault returns what is wrong with a key outside of this process, nil for nothing. The reason is for those who may see
// the log.
func signerFault(c *certbind.Credential, reason bool) *certbind.Fault {
	since, err := c.Failure()
	if err == nil || !c.Outside() {
		return nil
	}
	why := "the reason is in the log"
	if reason {
		why = err.Error()
	}
	return &certbind.Fault{What: fmt.Sprintf("this machine's key has not signed since %s: %s", since.UTC().Format(time.RFC3339), why),
		Cure: "see whether its signer works ('systemctl status shared-altsd-signer'): statements in force serve until they end, " +
			"and no new one is made"}
}

// A signerWatch says when a key outside of this process does not sign, and when it does again.
type signerWatch struct {
	machine *certbind.Machine
	log     *slog.Logger
	told    string    // why it did not sign, as was logged last; "" if it signed
	proved  time.Time // when it was asked last
}

// look is called at every announceInterval. It may take as long as proveSigner.
func (w *signerWatch) look(now time.Time) {
	c := w.machine.Credential()
	if !c.Outside() {
		return
	}
	if _, err := c.Failure(); err != nil || now.Sub(w.proved).Abs() >= proveInterval {
		w.proved = now
		ctx, cancel := context.WithTimeout(context.Background(), proveSigner)
		c.Prove(ctx)
		cancel()
	}
	_, err := c.Failure()
	switch {
	case err == nil && w.told != "":
		w.log.Info("this machine's key signs again")
		w.told = ""
	case err != nil && err.Error() != w.told:
		w.log.Error("this machine's key does not sign: statements in force serve until they end", "error", cli.OneLine(err.Error()))
		w.told = err.Error()
	}
}

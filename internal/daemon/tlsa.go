package daemon

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
)

// A Publication is what DNS is to say of this machine.
type Publication struct {
	Credentials, Key string // as those of Files
	Next             string // the file that takes the place of Credentials, "" for none
	MachineName      string
	Selector         int
	Matching         int
	TTL              time.Duration
	NSUpdate         bool // the form of nsupdate, not of a zone file
	Replace          bool // the name has no other records
}

// Write prints the records to publish, with what to do when in comments.
func (p *Publication) Write(w io.Writer) error {
	if p.Credentials == "" {
		return errors.New("--credentials is missing: give the PEM file with this machine's certificate")
	}
	if p.Replace && !p.NSUpdate {
		return errors.New("--replace goes with --format nsupdate: in a zone file, take the other records out")
	}
	cert, err := published(p.Credentials, p.Key)
	if err != nil {
		return fmt.Errorf("--credentials: %w", err)
	}
	fqdn := ""
	if p.MachineName == "" && len(cert.DNSNames) > 1 {
		fqdn = hostFQDN()
	}
	name, err := certbind.PublishedName(cert, p.MachineName, fqdn)
	if err != nil {
		return fmt.Errorf("%s: %w", p.Credentials, withFlag(err))
	}
	now, err := p.record(cert, p.Credentials)
	if err != nil {
		return err
	}
	out := recordWriter{p: p, owner: certbind.TLSAOwner(name)}
	out.begin()
	out.record(now, "what this machine has", p.Credentials)
	if p.Selector == certbind.SelectorCert {
		out.comment("this is of the certificate, and of no other for the same key: publish that of the next one before it is renewed")
		out.comment("(--next), or publish that of the key, which stays (--selector 1)")
	}
	if p.Next != "" {
		if err := p.next(&out, name, now); err != nil {
			return err
		}
	}
	out.end()
	_, err = w.Write(out.Bytes())
	return err
}

// next adds the record of what comes after the present one.
func (p *Publication) next(out *recordWriter, name string, now certbind.TLSA) error {
	cert, err := published(p.Next, "")
	if err != nil {
		return fmt.Errorf("--next: %w", err)
	}
	if cert.Raw != nil {
		if _, err := certbind.PublishedName(cert, name, ""); err != nil {
			return fmt.Errorf("--next: %s: %w", p.Next, err)
		}
	}
	next, err := p.record(cert, p.Next)
	if err != nil {
		return err
	}
	if next.String() == now.String() {
		out.comment("%s has the same: nothing in DNS has to change for it", p.Next)
		return nil
	}
	out.record(next, "what comes next", p.Next)
	out.comment("1. Publish both. 2. Once all servers of the zone have them, wait for %v and 10 s, the time for which what was there",
		p.TTL)
	out.comment("before is kept (its TTL, if that is another). 3. Bring %s into force (shared-altsd reload).", p.Next)
	out.comment("4. When 'shared-altsd status' shows the new certificate the old record may go. Connections that were made by it")
	out.comment("end within an hour of that, as if the key had been stolen.")
	return nil
}

func (p *Publication) record(cert *x509.Certificate, file string) (certbind.TLSA, error) {
	if cert.Raw == nil && p.Selector == certbind.SelectorCert {
		return certbind.TLSA{}, fmt.Errorf("%s holds a key and no certificate: publish that of the key (--selector 1)", file)
	}
	return certbind.NewTLSA(cert, byte(p.Selector), byte(p.Matching))
}

// published reads what DNS is to vouch for: a certificate, or a key that has none yet.
func published(file, key string) (*x509.Certificate, error) {
	data, _, err := ReadKeyFile(file)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	if _, elsewhere := SignerSocket(key); key != "" && !elsewhere {
		more, _, err := ReadKeyFile(key)
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		defer clear(more)
		data = append(append(data[:len(data):len(data)], '\n'), more...)
		defer clear(data)
	}
	cert, err := certbind.ParsePublished(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return cert, nil
}

// A recordWriter writes records in the form that was asked for.
type recordWriter struct {
	bytes.Buffer
	p     *Publication
	owner string
}

func (w *recordWriter) begin() {
	if w.p.Replace {
		fmt.Fprintf(w, "update delete %s TLSA\n", w.owner)
	}
}

func (w *recordWriter) comment(format string, args ...any) {
	fmt.Fprintf(w, "; "+format+"\n", args...)
}

func (w *recordWriter) record(r certbind.TLSA, what, file string) {
	w.comment("%s (%s)", what, file)
	if seconds := int(w.p.TTL / time.Second); w.p.NSUpdate {
		fmt.Fprintf(w, "update add %s %d TLSA %v\n", w.owner, seconds, r)
	} else {
		fmt.Fprintf(w, "%s %d IN TLSA %v\n", w.owner, seconds, r)
	}
}

func (w *recordWriter) end() {
	if w.p.NSUpdate {
		fmt.Fprintln(w, "send")
	}
}

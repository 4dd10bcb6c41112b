package testdns

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A zone is a Zone with its keys, in a directory of its own.
type zone struct {
	Zone
	dir          string
	key, listed  string // names of the files of the key that the root vouches for, and of another one, without suffix
	ds, listedDS string // what the root says of each
}

func (z *zone) keyFile() string { return z.key + ".key" }
func (z *zone) served() string  { return filepath.Join(z.dir, "served") }
func (z *zone) dot() string     { return strings.TrimSuffix(z.Name, ".") + "." }

// makeKeys makes the zone's keys, which stay the same however it is signed.
func (z *zone) makeKeys() error {
	if err := os.Mkdir(z.dir, 0o755); err != nil {
		return err
	}
	for _, k := range []struct{ key, ds *string }{{&z.key, &z.ds}, {&z.listed, &z.listedDS}} {
		name, err := run(z.dir, "dnssec-keygen", "-q", "-a", "ECDSAP256SHA256", "-f", "KSK", z.dot())
		if err != nil {
			return err
		}
		*k.key = filepath.Join(z.dir, strings.TrimSpace(name))
		if *k.ds, err = run(z.dir, "dnssec-dsfromkey", "-2", *k.key+".key"); err != nil {
			return err
		}
	}
	return nil
}

// delegation returns what the root says of the zone.
func (z *zone) delegation() string {
	text := z.dot() + " IN NS ns.root.\n"
	switch z.Kind {
	case Unsigned:
		return text
	case OtherParent:
		return text + z.listedDS
	}
	return text + z.ds
}

// sign writes what is served of zones.
func (d *DNS) sign(t testing.TB, zones ...*zone) {
	t.Helper()
	for _, z := range zones {
		d.serial++
		if err := z.sign(d); err != nil {
			t.Fatal(err)
		}
	}
}

func (z *zone) sign(d *DNS) error {
	text := fmt.Sprintf("$ORIGIN %s\n$TTL 1\n@ IN SOA ns.root. root. %d 3600 600 86400 1\n@ IN NS ns.root.\n", z.dot(), d.serial)
	if z == d.zones[0] {
		text += "ns.root. IN A 127.0.0.2\n"
		for _, child := range d.zones[1:] {
			text += child.delegation()
		}
	}
	text += strings.Join(z.Records, "\n") + "\n"
	if z.Kind == Unsigned || z.Kind == Stripped {
		return os.WriteFile(z.served(), []byte(text), 0o644)
	}
	const day = 24 * time.Hour
	begin, end, key := -day, 30*day, z.key
	switch z.Kind {
	case Expired:
		begin, end = -60*day, -30*day
	case NotYet:
		begin, end = 30*day, 60*day
	case ListedKey:
		key = z.listed
	}
	for _, k := range []string{z.key, z.listed} {
		if k == key || z.Kind == ListedKey {
			text += "$INCLUDE " + k + ".key\n"
		}
	}
	if err := os.WriteFile(filepath.Join(z.dir, "zone"), []byte(text), 0o644); err != nil {
		return err
	}
	at := func(after time.Duration) string { return time.Now().UTC().Add(after).Format("20060102150405") }
	if _, err := run(z.dir, "dnssec-signzone", "-q", "-P", "-z", "-O", "full", "-s", at(begin), "-e", at(end), "-o", z.dot(), "-f", "signed", "zone",
		key); err != nil {
		return err
	}
	signed, err := os.ReadFile(filepath.Join(z.dir, "signed"))
	if err != nil {
		return err
	}
	if z.Kind == Forged {
		signed = tlsa.ReplaceAllFunc(signed, func(line []byte) []byte {
			if last := &line[len(line)-1]; *last == '0' {
				*last = '1'
			} else {
				*last = '0'
			}
			return line
		})
	}
	return os.WriteFile(z.served(), signed, 0o644)
}

// tlsa is a TLSA record in a zone file of one line each.
var tlsa = regexp.MustCompile(`(?m)^\S+\s+\d+\s+IN\s+TLSA\s.*[0-9A-F]$`)

package main

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/daemon"
)

// fileOptions are the flags about certificates, which serve and check share, bound to f.
func fileOptions(f *daemon.Files) []cli.Option {
	const group = "Certificates:"
	addCA := func(v string) error {
		names, file, err := parseCAFlag(v)
		if err == nil {
			f.CAs = append(f.CAs, daemon.CAFile{Names: names, File: file})
		}
		return err
	}
	addCRL := func(v string) error {
		file, complete := strings.CutPrefix(v, "complete=")
		if file == "" {
			return errors.New("--crl names no file; write --crl FILE or --crl complete=FILE")
		}
		f.CRLs = append(f.CRLs, daemon.CRLFile{File: file, Complete: complete})
		return nil
	}
	setMachineName := func(v string) error {
		f.MachineName = ascii.Lower(v)
		return certbind.ValidMachineName(f.MachineName)
	}
	setStateDir := func(v string) error {
		f.StateDir = v
		return nil
	}
	setRequireEKU := func(v string) (err error) {
		f.RequireEKU, err = parseOID(v)
		return err
	}
	return []cli.Option{
		{Name: "credentials", Group: group, Value: cli.File(&f.Credentials),
			Help: "PEM file with this machine's certificate chain and private key, in any order."},
		{Name: "key", Group: group, Value: cli.File(&f.Key),
			Help: "PEM file with the private key, if it is not in --credentials."},
		{Name: "ca", Group: group, Repeat: true, Value: cli.Func("[NAMES=]FILE", addCA).CompleteFiles(),
			Help: "PEM file with CA certificates whose machines are trusted. With NAMES, separated by commas, they vouch only " +
				"for machines of these names and below: 'example.com,hpc.example.com=FILE'. The FILE 'system' is the " +
				"system's pool, which can be used only with NAMES."},
		{Name: "crl", Group: group, Repeat: true, Value: cli.Func("[complete=]FILE", addCRL).CompleteFiles(),
			Help: "Certificate revocation list, PEM or DER. A list that names its place (issuing distribution point) answers for " +
				"the certificates that name the same one; 'complete=FILE' says that it has all that its CA revokes."},
		{Name: "crl-stale-ok", Group: group, Value: cli.Switch(&f.CRLStaleOK),
			Help: "Go on with a revocation list that is past its next update. Otherwise it fails every chain of its issuer."},
		{Name: "state-dir", Group: group, Value: cli.Func("DIR", setStateDir).CompleteFiles(),
			Help: "Directory in which the daemon remembers the newest revocation list of each CA, so that after a restart no " +
				"older one takes its place. Without it systemd's (STATE_DIRECTORY); without that a restart forgets."},
		{Name: "machine-name", Group: group, Value: cli.Func("NAME", setMachineName),
			Help: "Name of this machine, one of the DNS names in its certificate. Needed where there are several and none is " +
				"the host's own full name."},
		{Name: "require-eku", Group: group, Value: cli.Func("OID", setRequireEKU),
			Help: "Extended key usage that every peer's certificate has to name, such as 1.3.6.1.4.1.32473.1.1. " +
				"Recommended: without it, whoever can read a host's TLS key speaks for every account there."},
	}
}

// parseOID reads the value of --require-eku.
func parseOID(v string) (oid asn1.ObjectIdentifier, err error) {
	for _, arc := range strings.Split(v, ".") {
		n, err := strconv.ParseUint(arc, 10, 31)
		if err != nil {
			return nil, fmt.Errorf("%q is not an OID: write numbers joined by dots, such as 1.3.6.1.4.1.32473.1.1", v)
		}
		oid = append(oid, int(n))
	}
	if len(oid) < 3 {
		return nil, fmt.Errorf("%q is too short for an OID of a purpose: write numbers joined by dots, such as "+
			"1.3.6.1.4.1.32473.1.1", v)
	}
	return oid, nil
}

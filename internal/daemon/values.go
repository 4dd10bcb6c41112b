package daemon

// How what a Config holds is written: the values of serve's flags.

import (
	"encoding/asn1"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/metrics"
	"github.com/shared-altsd/shared-altsd/internal/purpose"
	"github.com/shared-altsd/shared-altsd/service"
)

// ParseCAFile reads the value of --ca: FILE, or names joined by commas, '=' and FILE. FILE may be the word "system",
// the system's pool, or "dane", trust by DNS, both of which must be limited to names. Names are put in lower case. What stands
// before '=' and holds a '/' is part of a file's name.
func ParseCAFile(v string) (CAFile, error) {
	limit, file, found := strings.Cut(v, "=")
	if !found || strings.Contains(limit, "/") {
		limit, file, found = "", v, false
	}
	if file == "" {
		return CAFile{}, errors.New("--ca names no file; write --ca FILE or --ca example.com=FILE")
	}
	var names []string
	if found {
		for n := range strings.SplitSeq(limit, ",") {
			n = ascii.Lower(n)
			if err := certbind.ValidMachineName(n); err != nil {
				return CAFile{}, fmt.Errorf("--ca limits a CA to %q: %w; write --ca example.com,hpc.example.com=FILE", n, err)
			}
			names = append(names, n)
		}
	}
	if file == "system" && len(names) == 0 {
		return CAFile{}, errors.New("--ca system would let any public CA vouch for any machine; " +
			"limit it, as in --ca example.com=system")
	}
	if file == dnsVouches && len(names) == 0 {
		return CAFile{}, errors.New("--ca dane would let in any machine of any signed domain; " +
			"limit it, as in --ca example.com=dane (a file of that name is ./dane)")
	}
	return CAFile{Names: names, File: file}, nil
}

// ParseCRLFile reads the value of --crl: FILE, or "complete=" and FILE. A '/' at its end says that it is a directory, which
// need not be there yet.
func ParseCRLFile(v string) (CRLFile, error) {
	file, complete := strings.CutPrefix(v, "complete=")
	if file == "" {
		return CRLFile{}, errors.New("--crl names no file; write --crl FILE or --crl complete=FILE")
	}
	if strings.HasSuffix(file, "/") {
		return CRLFile{File: filepath.Clean(file), Dir: true, Complete: complete}, nil
	}
	return CRLFile{File: file, Complete: complete}, nil
}

// ParsePurpose reads the value of --require-eku: the name of our own purpose, or an OID. serverAuth and clientAuth have no
// names here, since every web server's certificate has them.
func ParsePurpose(v string) (asn1.ObjectIdentifier, error) {
	if ascii.Lower(v) == purpose.Name {
		return purpose.OID(), nil
	}
	oid, err := purpose.Parse(v)
	if err != nil {
		return nil, fmt.Errorf("%.80q is no purpose: %w; write %s, or numbers joined by dots, such as 1.3.6.1.4.1.32473.1.1", v, err,
			purpose.Name)
	}
	return oid, nil
}

// ParseMode reads the value of --socket-mode.
func ParseMode(v string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(v, 8, 32)
	if err != nil || n > 0o777 {
		return 0, fmt.Errorf("%q is not a mode: give permission bits in octal, such as 0666", v)
	}
	return fs.FileMode(n), nil
}

// ParseGroup returns the gid of --socket-group, a group's name or number.
func ParseGroup(v string) (int, error) {
	if gid, err := strconv.ParseUint(v, 10, 31); err == nil {
		return int(gid), nil
	}
	gid, err := service.GroupID(v)
	return int(gid), err
}

// ParseMetricsAddr reads the value of --metrics.
func ParseMetricsAddr(v string) (a MetricsAddr, err error) {
	a.Network, a.Address, err = metrics.ParseAddr(v)
	if err == nil && a.Network == "unix" {
		err = localsock.CheckPath(a.Address)
	}
	return a, err
}

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/devca"
)

var devCACommand = &cli.Command{
	Name:    "dev-ca",
	Args:    cli.Args{Text: "DIR HOST...", Directory: true},
	Summary: "make a throwaway CA and a certificate for each HOST, to try it out",
	About: `
Makes a CA, and DIR/ca.pem with its certificate and DIR/HOST.pem with key and certificate for each HOST, good for 90
days. The CA's own key is thrown away at once, so that nobody can steal it: for another HOST, make a new CA. No file
is overwritten. Not for production: there is no revocation and no renewal.

  shared-altsd dev-ca ca a.example.com b.example.com
  # copy ca/ca.pem to both machines and each HOST.pem to its own; then on each
  shared-altsd serve --credentials HOST.pem --ca ca.pem`,
	Setup: func() ([]cli.Option, func([]string) error) {
		ips := map[string][]net.IP{}
		options := []cli.Option{{
			Name: "ip", Repeat: true,
			Help: "Put an IP address into the certificate of HOST as well, for clients that dial it by address.",
			Value: cli.Func("HOST=ADDRESS", func(v string) error {
				host, addr, _ := strings.Cut(v, "=")
				ip := net.ParseIP(addr)
				if ip == nil {
					return fmt.Errorf("%q is not HOST=ADDRESS, such as a.example.com=192.0.2.1", v)
				}
				host = ascii.Lower(host)
				ips[host] = append(ips[host], ip)
				return nil
			}),
		}}
		return options, func(args []string) error {
			if len(args) < 2 {
				return cli.Usagef("DIR or HOST is missing: shared-altsd dev-ca DIR HOST...")
			}
			return devCA(args[0], args[1:], ips)
		}
	},
}

func devCA(dir string, hosts []string, ips map[string][]net.IP) error {
	var names []string
	for _, host := range hosts {
		name := ascii.Lower(host)
		if net.ParseIP(host) != nil {
			return cli.Usagef("%s is an IP address, and a machine needs a name: give a host name, and the address by "+
				"--ip HOST=%s", host, host)
		}
		if err := certbind.ValidMachineName(name); err != nil {
			return cli.Usagef("HOST %q: %v", host, err)
		}
		if name == "ca" {
			return cli.Usagef("HOST ca would have the file of the CA: give another name")
		}
		if slices.Contains(names, name) {
			return cli.Usagef("HOST %s is given twice: give it once", name)
		}
		names = append(names, name)
	}
	for host := range ips {
		if !slices.Contains(names, host) {
			return cli.Usagef("--ip: %q is none of the HOSTs: write --ip HOST=ADDRESS", host)
		}
	}
	made := time.Now().UTC().Format(time.DateTime)
	ca, err := devca.New("shared-altsd throwaway CA " + made)
	if err != nil {
		return err
	}
	type file struct {
		name string
		data []byte
		mode fs.FileMode
	}
	files := []file{{"ca.pem", ca.PEM(), 0o644}}
	for _, name := range names {
		issued, err := ca.Issue(name, ips[name]...)
		if err != nil {
			return err
		}
		files = append(files, file{name + ".pem", issued.PEM(), 0o600})
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// All or none: a mixture of two CAs would be hard to find out about later.
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(dir, f.name)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is there already, and nothing was written: remove it, or give another DIR",
				filepath.Join(dir, f.name))
		}
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := writeNew(path, f.data, f.mode); err != nil {
			return err
		}
		fmt.Println(path)
	}
	return nil
}

// writeNew makes a file with exactly that mode, and never writes over one.
func writeNew(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Chmod(mode), f.Close())
}

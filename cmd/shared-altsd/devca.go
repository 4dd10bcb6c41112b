package main

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

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
			hosts, err := machineNames(args[1:], ips)
			if err != nil {
				return err
			}
			return devca.Write(os.Stdout, args[0], hosts, ips)
		}
	},
}

// machineNames returns hosts as names of machines, if they are such and those of ips are among them.
func machineNames(hosts []string, ips map[string][]net.IP) (names []string, err error) {
	for _, host := range hosts {
		name := ascii.Lower(host)
		if net.ParseIP(host) != nil {
			return nil, cli.Usagef("%s is an IP address, and a machine needs a name: give a host name, and the address by "+
				"--ip HOST=%s", host, host)
		}
		if err := certbind.ValidMachineName(name); err != nil {
			return nil, cli.Usagef("HOST %q: %v", host, err)
		}
		if name == "ca" {
			return nil, cli.Usagef("HOST ca would have the file of the CA: give another name")
		}
		if slices.Contains(names, name) {
			return nil, cli.Usagef("HOST %s is given twice: give it once", name)
		}
		names = append(names, name)
	}
	for host := range ips {
		if !slices.Contains(names, host) {
			return nil, cli.Usagef("--ip: %q is none of the HOSTs: write --ip HOST=ADDRESS", host)
		}
	}
	return names, nil
}

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/daemon"
	"github.com/shared-altsd/shared-altsd/internal/fetchcrl"
	"github.com/shared-altsd/shared-altsd/internal/nodumps"
	"github.com/shared-altsd/shared-altsd/internal/systemd"
)

var fetchCRLCommand = &cli.Command{
	Name:    "fetch-crl",
	Summary: "bring the CAs' revocation lists, over http, into a directory that the daemon reads",
	About: `
Takes each revocation list once from where it is published and puts it into a directory, for a daemon that has no
network and is given that directory. The lists are those of --url, and those at which the CAs of --ca and the
certificates of --certificates say that their lists are. The packages have a timer for it.

  shared-altsd fetch-crl --ca ca.pem --url http://ca.example.com/ca.crl --into /var/lib/shared-altsd-crl
  shared-altsd fetch-crl --config shared-altsd.conf --certificates chain.pem --into /var/lib/altsd-lists

Only a list is taken that a trusted CA has signed, that is in its time, and that is newer than the one that is there;
deltas and indirect lists are refused. URLs of certificates, and redirects, are followed by http and https alone, to any
port, and to no loopback or link-local address; at most 3 redirects, none from https to http. Proxies of the environment
are not used. Exit status 0 if all lists that are wanted are there and in their time, else 1; each failure is a line with
its cure, and what is there stays.

With --extract it fetches nothing, and writes the certificates of a file that has a key as well to --certificates:

  sudo shared-altsd fetch-crl --extract /etc/shared-altsd/machine.pem --certificates chain.pem`,
	Config: configFile("Configuration:"),
	Setup: func() ([]cli.Option, func([]string) error) {
		c := new(fetchCRLConfig)
		return c.options(), func([]string) error { return c.run() }
	},
}

// fetchCRLConfig is what the flags of fetch-crl say.
type fetchCRLConfig struct {
	fetchcrl.Config
	files                 daemon.Files
	certificates, extract string
}

func (c *fetchCRLConfig) options() []cli.Option {
	const (
		what   = "Which lists:"
		where  = "Where to:"
		limits = "Times and limits:"
	)
	addURL := func(v string) error {
		c.URLs = append(c.URLs, v)
		return fetchcrl.CheckURL(v)
	}
	return []cli.Option{
		caOption(&c.files, what),
		{Name: "url", Group: what, Repeat: true, Value: cli.Func("URL", addURL),
			Help: "Place of a list, http or https. What you name here may be on this machine."},
		{Name: "certificates", Group: what, Value: cli.File(&c.certificates),
			Help: "PEM file of certificates without a key, this machine's and those between it and its CA: the lists are fetched " +
				"from where these say, and lists of the CAs among them are believed if a CA of --ca vouches for them."},
		{Name: "extract", Group: what, Value: cli.File(&c.extract),
			Help: "Fetch nothing: write the certificates of FILE, without its key, to --certificates."},
		{Name: "into", Group: where, Value: cli.String(&c.Dir, "DIR").CompleteFiles(),
			Help: "Directory of the lists, NAME.crl in DER, which nobody but this account may write. What this program knows of its " +
				"last run is there as well, fetch-crl.json."},
		{Name: "textfile", Group: where, Value: cli.File(&c.Textfile),
			Help: "Write metrics there, for the textfile collector of Prometheus' node_exporter."},
		{Name: "machine-name", Group: where, Value: cli.String(&c.Machine, "NAME"),
			Help: "Name of this machine in the metrics. Without it, that of its own certificate among --certificates."},
		{Name: "timeout", Default: "1m", Group: limits, Value: cli.Duration(&c.Timeout, time.Second, 10*time.Minute),
			Help: "How long one place may take. All of them may take 15 minutes."},
		{Name: "max-size", Default: "16777216", Group: limits, Value: cli.Int(&c.MaxSize, "BYTES", 1<<10, certbind.MaxListSize),
			Help: "How large a list may be. The default is what the daemon takes."},
		{Name: "jitter", Default: "0s", Group: limits, Value: cli.Duration(&c.Jitter, 0, 24*time.Hour),
			Help: "Begin at a time chosen at random within TIME, for a cron job that many machines have."},
	}
}

func (c *fetchCRLConfig) run() error {
	if c.extract != "" {
		return c.runExtract()
	}
	if c.Dir == "" {
		return cli.Usagef("--into is missing: give the directory of the lists")
	}
	trust, err := c.files.Trust()
	if err != nil {
		return err
	}
	if c.certificates != "" {
		data, err := daemon.ReadCertificates(c.certificates)
		if err != nil {
			return fmt.Errorf("--certificates: %w", err)
		}
		if c.Certificates, err = certbind.ReadCertificates(data, false); err != nil {
			return fmt.Errorf("--certificates: %s: %w", c.certificates, err)
		}
	}
	if c.Machine == "" {
		c.Machine = fetchcrl.MachineName(c.Certificates)
	}
	c.Issuers = trust.ListIssuers(c.Certificates, time.Now())
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ok, err := fetchcrl.Run(ctx, c.Config, os.Stdout, systemd.Writer(os.Stderr, slog.LevelWarn))
	if err == nil && !ok {
		err = cli.ExitStatus(1)
	}
	return err
}

func (c *fetchCRLConfig) runExtract() error {
	if c.certificates == "" {
		return cli.Usagef("--certificates is missing: give the file to write")
	}
	if err := nodumps.Set(); err != nil {
		return err
	}
	data, _, err := daemon.ReadKeyFile(c.extract)
	if err != nil {
		return fmt.Errorf("--extract: %w", err)
	}
	defer clear(data)
	if err := fetchcrl.Extract(data, c.certificates); err != nil {
		return fmt.Errorf("--extract: %s: %w", c.extract, err)
	}
	return nil
}

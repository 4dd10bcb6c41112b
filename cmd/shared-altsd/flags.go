package main

import (
	"strings"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/adminclient"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/daemon"
	"github.com/shared-altsd/shared-altsd/internal/localsock"
	"github.com/shared-altsd/shared-altsd/internal/ping"
	"github.com/shared-altsd/shared-altsd/internal/purpose"
	"github.com/shared-altsd/shared-altsd/service"
)

// Flags that several subcommands have.

// fileOptions returns the flags about certificates, which serve and check share, bound to f.
func fileOptions(f *daemon.Files) []cli.Option {
	const group = "Certificates:"
	addCRL := func(v string) error {
		crl, err := daemon.ParseCRLFile(v)
		if err == nil {
			f.CRLs = append(f.CRLs, crl)
		}
		return err
	}
	setMachineName := func(v string) error {
		f.MachineName = ascii.Lower(v)
		return certbind.ValidMachineName(f.MachineName)
	}
	setRequireEKU := func(v string) (err error) {
		f.RequireEKU, err = daemon.ParsePurpose(v)
		return err
	}
	setKey := func(v string) error {
		f.Key = v
		return daemon.CheckKey(v)
	}
	return []cli.Option{
		{Name: "credentials", Group: group, Value: cli.File(&f.Credentials),
			Help: "PEM file with this machine's certificate chain and private key, in any order."},
		{Name: "key", Group: group, Value: cli.Func("FILE|signer:PATH", setKey).CompleteFiles(),
			Help: "PEM file with the private key, if it is not in --credentials; or 'signer:/run/shared-altsd-signer/socket', the " +
				"socket of shared-altsd-signer, which has the key in a TPM or token and signs for this daemon. Then --credentials " +
				"has certificates alone."},
		caOption(f, group), resolverOption(f),
		{Name: "crl", Group: group, Repeat: true, Value: cli.Func("[complete=]FILE", addCRL).CompleteFiles(),
			Help: "Certificate revocation list, PEM or DER. A list that names its place (issuing distribution point) answers for " +
				"the certificates that name the same one; 'complete=FILE' says that it has all that its CA revokes. A directory, " +
				"'DIR/', is watched: an account that is not trusted brings lists there, *.crl, and can only withhold them. 'complete=DIR/' " +
				"holds for all lists there, whosever they are."},
		{Name: "crl-stale-ok", Group: group, Value: cli.Switch(&f.CRLStaleOK),
			Help: "Go on with a revocation list that is past its next update. Otherwise it fails every chain of its issuer."},
		{Name: "state-dir", Group: group, Value: cli.String(&f.StateDir, "DIR").CompleteFiles(),
			Help: "Directory in which the daemon remembers the newest revocation list of each CA, so that after a restart no " +
				"older one takes its place. Without it systemd's (STATE_DIRECTORY); without that a restart forgets."},
		{Name: "machine-name", Group: group, Value: cli.Func("NAME", setMachineName),
			Help: "Name of this machine, one of the DNS names in its certificate. Needed where there are several and none is " +
				"the host's own full name."},
		{Name: "require-eku", Group: group, Value: cli.Func("PURPOSE", setRequireEKU).CompleteChoices(purpose.Name),
			Help: "Purpose (extended key usage) that every peer's certificate has to name: '" + purpose.Name + "', that of " +
				"shared-altsd's own, or an OID such as 1.3.6.1.4.1.32473.1.1. Recommended: without it, whoever can read the key of a " +
				"machine's web server speaks for every account there."},
	}
}

// accountOptions returns the flags about how accounts are named, which serve and check share.
func accountOptions(f *daemon.Files, group string) []cli.Option {
	domains := func(v string) error {
		f.AccountDomains = strings.Split(ascii.Lower(v), ",")
		return service.CheckDomains(f.AccountDomains)
	}
	return []cli.Option{
		{Name: "account-domain", Group: group, Value: cli.Func("DOMAINS", domains),
			Help: "Domains of directories, separated by commas, such as ad.example.com. Their accounts are named with their domain, " +
				"alice@ad.example.com, whether the user database here says that, alice or AD\\alice; all others need a line in " +
				"/etc/passwd. Give it on all machines alike."},
		{Name: "allow-domain-accounts", Group: group, Value: cli.Switch(&f.AllowDomainAccounts),
			Help: "Accept '@' and '\\' in account names, here and in those of peers, as --account-domain does."},
	}
}

// caOption is the flag about CAs, which fetch-crl has as well.
func caOption(f *daemon.Files, group string) cli.Option {
	add := func(v string) error {
		ca, err := daemon.ParseCAFile(v)
		if err == nil {
			f.CAs = append(f.CAs, ca)
		}
		return err
	}
	return cli.Option{Name: "ca", Group: group, Repeat: true, Value: cli.Func("[NAMES=]FILE", add).CompleteFiles(),
		Help: "PEM file with CA certificates whose machines are trusted. With NAMES, separated by commas, they vouch only " +
			"for machines of these names and below: 'example.com,hpc.example.com=FILE'. The FILE 'system' is the " +
			"system's pool, which can be used only with NAMES. NAMES=dane: for these machines no CA vouches, but signed DNS " +
			"(docs/dns.md)."}
}

// resolverOption returns the flag about who asks DNS.
func resolverOption(f *daemon.Files) cli.Option {
	set := func(v string) error {
		f.Resolver = v
		return localsock.CheckPath(v)
	}
	return cli.Option{Name: "resolver-socket", Group: "Certificates:", Value: cli.Func("PATH", set).CompleteFiles(),
		Help: "Socket of the companion that asks DNS (shared-altsd resolve), " + daemon.DefaultResolver + " if none is given. Used " +
			"only with --ca NAMES=dane."}
}

// configFile returns the config file of the daemon, which other commands read as well; group is where their help has --config.
func configFile(group string) *cli.ConfigFile {
	return &cli.ConfigFile{
		Group: group,
		Help: "Read flags of serve from FILE as well, and from " + daemon.ConfDir + "/*.conf beside it: lines 'name = value', '#' " +
			"comments. The command line wins.",
		Options: func() []cli.Option { return new(serveConfig).options() },
		Read:    daemon.ReadConfigFile,
		More:    daemon.ReadConfDir,
	}
}

// daemonFlags are the flags of commands that talk to the daemon.
type daemonFlags struct {
	socket string
	uid    int
}

func (d *daemonFlags) options() []cli.Option {
	const group = "The daemon:"
	return []cli.Option{
		{Name: "socket", Group: group,
			Value: cli.Func("PATH", func(v string) error { d.socket = v; return localsock.CheckPath(v) }).CompleteFiles(),
			Help: "Socket of the daemon. Without it the variable " + localsock.Variable + ", then " +
				localsock.DefaultPath + "."},
		{Name: "daemon-uid", Group: group, Value: cli.Int(&d.uid, "UID", 0, 1<<31-1),
			Help: "Uid that the daemon may run as, besides root and the caller. Under systemd it is not needed: there the " +
				"socket is root's."},
	}
}

func jsonOption(p *bool) cli.Option {
	return cli.Option{Name: "json", Group: "Output:", Value: cli.Switch(p), Help: "Print JSON, for scripts."}
}

func (d *daemonFlags) admin() adminclient.Client {
	return adminclient.Client{Socket: localsock.Path(d.socket), DaemonUID: uint32(d.uid)}
}

func (d *daemonFlags) ping() ping.Daemon {
	return ping.Daemon{Socket: localsock.Path(d.socket), UID: uint32(d.uid)}
}

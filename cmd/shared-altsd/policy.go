package main

import (
	"os"

	"github.com/shared-altsd/shared-altsd/internal/adminclient"
	"github.com/shared-altsd/shared-altsd/internal/adminpb"
	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/daemon"
)

var policyCommand = &cli.Command{
	Name:    "policy",
	Args:    cli.Args{Text: "test PEER LOCAL", Choices: []string{"test"}},
	Summary: "say what the policy would say of a connection, and by which line",
	About: `
Says whether PEER, ACCOUNT@MACHINE, and the account LOCAL of this machine may talk to each other, and which line says so: by
the policy of the running daemon, or with --policy or --denied by one in files. Where the daemon is asked, everybody may ask
of his own account, and root of all. Only this machine's side is judged, and the peer's certificate is not known: lines that
ask for something of it are named, unless --condition says that it is so. Exit status 0 if it is allowed, 1 if it is
refused, 2 for a mistake.

  shared-altsd policy test alice@alpha.example.com greeter
  shared-altsd policy test alice@alpha.example.com greeter --in --service 6432 --group dba
  shared-altsd policy test alice@alpha.example.com greeter --policy ./policy.d --local-group ''`,
	Setup: func() ([]cli.Option, func([]string) error) {
		d, req := new(daemonFlags), new(adminpb.TestRulesRequest)
		var in, out, domains bool
		var dir, denied string
		const group = "Connection:"
		localGroup := func(v string) error {
			if req.LocalGroups == nil {
				req.LocalGroups = new(adminpb.GroupNames)
			}
			if v != "" {
				req.LocalGroups.Names = append(req.LocalGroups.Names, v)
			}
			return nil
		}
		options := append(d.options(),
			cli.Option{Name: "in", Group: group, Value: cli.Switch(&in),
				Help: "LOCAL accepts. Without --in and --out, both are judged."},
			cli.Option{Name: "out", Group: group, Value: cli.Switch(&out), Help: "LOCAL dials."},
			cli.Option{Name: "service", Group: group, Value: cli.String(&req.Service, "NAME"), Default: "grpc",
				Help: "Application protocol."},
			cli.Option{Name: "group", Group: group, Repeat: true, Value: cli.Strings(&req.Groups, "GROUP"),
				Help: "Group of PEER that its machine publishes, as rules write it."},
			cli.Option{Name: "condition", Group: group, Repeat: true, Value: cli.Strings(&req.Conditions, "CONDITION"),
				Help: "What holds of PEER's certificate, as a rule asks it: eku=OID, ca=\"NAME\" or the like."},
			cli.Option{Name: "local-group", Group: group, Repeat: true, Value: cli.Func("GROUP", localGroup),
				Help: "Group of LOCAL, in the place of those that this machine's user database has; empty for none."},
			cli.Option{Name: "policy", Group: "Files:", Value: cli.String(&dir, "DIR").CompleteFiles(),
				Help: "Directory of rules, as that of serve, in the place of the daemon's."},
			cli.Option{Name: "denied", Group: "Files:", Value: cli.String(&denied, "DIR").CompleteFiles(),
				Help: "Directory of what is denied, as that of serve."},
			cli.Option{Name: "allow-domain-accounts", Group: "Files:", Value: cli.Switch(&domains),
				Help: "Local accounts may be of a domain, as with that of serve."})
		return options, func(args []string) error {
			if len(args) != 3 || args[0] != "test" {
				return cli.Usagef("what is to be tested? write policy test PEER LOCAL, as in policy test alice@alpha.example.com greeter")
			}
			req.Peer, req.Local = args[1], args[2]
			for _, way := range []struct {
				wanted bool
				name   string
			}{{in, "in"}, {out, "out"}} {
				if way.wanted {
					req.Directions = append(req.Directions, way.name)
				}
			}
			resp, err := testRules(d, dir, denied, domains, req)
			if err != nil {
				return cli.Usagef("%v", err)
			}
			if !adminclient.PrintTest(os.Stdout, resp) {
				return cli.ExitStatus(1)
			}
			return nil
		}
	},
}

// testRules asks the files, if there are any, else the daemon.
func testRules(d *daemonFlags, dir, denied string, domains bool, req *adminpb.TestRulesRequest) (*adminpb.TestRulesResponse,
	error) {
	if dir != "" || denied != "" {
		return daemon.TestRules(dir, denied, domains, req)
	}
	return d.admin().TestRules(req)
}

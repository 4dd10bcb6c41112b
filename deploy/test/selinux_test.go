//go:build deploy

package deploytest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testdoc"
)

// elTypes are the types of Fedora's policy that the module names and Debian's has not, so that what is said of them is linked too.
const elTypes = `module el_types 1.0;
require { attribute domain, unconfined_domain_type; role system_r; }
type unconfined_service_t, domain, unconfined_domain_type;
role system_r types unconfined_service_t;
type container_t, domain;
type passwd_file_t;
`

// module compiles a policy module that needs no macros.
func module(t *testing.T, dir, name, source string) (pp string) {
	t.Helper()
	base := filepath.Join(dir, name)
	if err := os.WriteFile(base+".te", []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, "checkmodule", "-M", "-m", "-o", base+".mod", base+".te")
	must(t, "semodule_package", "-o", base+".pp", "-m", base+".mod")
	return base + ".pp"
}

// TestSELinuxPolicy links the module of the package, and the example of docs/mac.md, with all modules of Debian's policy, and asks
// the whole what it allows. No kernel enforces it here: the page says what that leaves.
func TestSELinuxPolicy(t *testing.T) {
	dir := t.TempDir()
	must(t, "sh", "-c", "cd "+dir+" && get() { apt-get download -qq selinux-policy-default 2>&1; } && { get || { apt-get update -qq && get; }; } && dpkg-deb -x selinux-policy-default_*.deb debian")
	store := filepath.Join(dir, "store")
	must(t, "sh", "-c", fmt.Sprintf("mkdir -p %[1]s/etc/selinux %[1]s/var/lib/selinux && cp -r %[2]s/debian/etc/selinux/. %[1]s/etc/selinux/ && "+
		"cp /etc/selinux/semanage.conf %[1]s/etc/selinux/ && printf 'SELINUX=permissive\nSELINUXTYPE=default\n' >%[1]s/etc/selinux/config", store, dir))
	var own []string
	rpms, _ := filepath.Glob(filepath.Join(root, "dist/selinux/*.rpm"))
	if len(rpms) != 1 {
		t.Fatalf("%d packages of the policy, want one: run make packages", len(rpms))
	}
	rpm, err := filepath.Abs(rpms[0])
	if err != nil {
		t.Fatal(err)
	}
	must(t, "sh", "-c", "cd "+dir+" && rpm2cpio "+rpm+" | cpio -idm --quiet --no-absolute-filenames")
	own = append(own, filepath.Join(dir, "usr/share/selinux/packages/shared-altsd/shared_altsd.pp"), module(t, dir, "el_types", elTypes))
	own = append(own, exampleModule(t, dir))
	must(t, "sh", "-ec", "cd "+dir+"\nset --\nfor m in debian/usr/share/selinux/default/*.pp.bz2 "+strings.Join(own, " ")+
		"; do set -- \"$@\" -i \"$m\"; done\n[ $# -gt 400 ]\nexec semodule -n -s default -p store \"$@\"")
	policies, _ := filepath.Glob(filepath.Join(store, "etc/selinux/default/policy/policy.*"))
	if len(policies) != 1 {
		t.Fatalf("the linked policies: %q", policies)
	}
	types := []string{"httpd_t", "postgresql_t", "mysqld_t", "redis_t", "example_t", "named_t", "container_t", "user_t", "certmonger_t", "init_t",
		"unconfined_service_t", "dns_port_t", "shared_altsd_t", "shared_altsd_resolve_t", "shared_altsd_crl_t", "shared_altsd_signer_t",
		"shared_altsd_exec_t", "shared_altsd_key_t", "shared_altsd_conf_t", "shared_altsd_lists_t", "shared_altsd_runtime_t"}
	p := readPolicy(t, policies[0], types...)
	tab := &table{title: "The policy for SELinux, linked with Debian's:"}
	defer tab.print()
	yes := func(what, source, target, class, right, part string) {
		tab.row(t, what, func(t *testing.T) string {
			rules := p.allows(source, target, class, right)
			i := slices.IndexFunc(rules, func(r string) bool { return strings.Contains(r, part) })
			if i < 0 {
				t.Fatalf("no %q among %q", part, rules)
			}
			return rules[i]
		})
	}
	no := func(what, source, target, class string, rights ...string) {
		tab.row(t, what, func(t *testing.T) string {
			for _, right := range rights {
				if rules := p.allows(source, target, class, right); len(rules) != 0 {
					t.Fatalf("%q", rules)
				}
			}
			return "no rule"
		})
	}
	for _, service := range []string{"httpd_t", "postgresql_t", "mysqld_t", "redis_t", "example_t", "user_t"} {
		yes(service+" may connect", service, "shared_altsd_t", "unix_stream_socket", "connectto", "shared_altsd_t:unix_stream_socket connectto;")
		yes(service+" may write to the socket's file", service, "shared_altsd_runtime_t", "sock_file", "write", "shared_altsd_runtime_t")
		no(service+" may not read the key", service, "shared_altsd_key_t", "file", "read", "write", "open", "relabelfrom")
		no(service+" may not read the configuration", service, "shared_altsd_conf_t", "file", "read", "write", "open")
		no(service+" may not run as the daemon", service, "shared_altsd_t", "process", "transition", "ptrace")
	}
	yes("other services by a boolean", "named_t", "shared_altsd_t", "unix_stream_socket", "connectto", "[ shared_altsd_connect_services ]:True")
	yes("containers by a boolean", "container_t", "shared_altsd_t", "unix_stream_socket", "connectto", "[ shared_altsd_connect_containers ]:True")
	yes("systemd starts the daemon", "init_t", "shared_altsd_t", "process", "transition", "init_t")
	yes("in spite of NoNewPrivileges=", "init_t", "shared_altsd_t", "process2", "nnp_transition", "init_t")
	yes("by the program's file", "shared_altsd_t", "shared_altsd_exec_t", "file", "entrypoint", "shared_altsd_t")
	for _, domain := range []string{"shared_altsd_t", "shared_altsd_signer_t"} {
		no(domain+" makes no connection, opens no port", domain, "", "tcp_socket", "create", "connect", "name_connect")
		no(domain+" sends no datagrams", domain, "", "udp_socket", "create", "name_bind")
	}
	for _, domain := range []string{"shared_altsd_t", "shared_altsd_resolve_t", "shared_altsd_crl_t", "shared_altsd_signer_t"} {
		no(domain+" has no capability", domain, "", "capability", "dac_override", "dac_read_search", "setuid", "net_admin", "sys_admin")
		no(domain+" becomes nobody else", domain, "", "process", "transition", "dyntransition", "ptrace")
		no(domain+" runs nothing it wrote", domain, "", "process", "execmem")
		yes(domain+" is started by systemd", "init_t", domain, "process", "transition", "init_t")
	}
	yes("resolve connects for DNS", "shared_altsd_resolve_t", "dns_port_t", "tcp_socket", "name_connect", "dns_port_t")
	no("resolve may not read the key", "shared_altsd_resolve_t", "shared_altsd_key_t", "file", "read", "open")
	no("fetch-crl may not read the key", "shared_altsd_crl_t", "shared_altsd_key_t", "file", "read", "open")
	yes("fetch-crl writes lists", "shared_altsd_crl_t", "shared_altsd_lists_t", "file", "create", "shared_altsd_crl_t")
	no("the daemon does not write lists", "shared_altsd_t", "shared_altsd_lists_t", "file", "write", "create", "unlink")
	yes("certmonger writes the key", "certmonger_t", "shared_altsd_key_t", "file", "write", "certmonger_t")
	yes("listen is as services without a policy", "init_t", "unconfined_service_t", "process2", "nnp_transition", "init_t")
	if out := must(t, "sesearch", "-T", "-s", "init_t", "-t", "shared_altsd_exec_t", policies[0]); out != "type_transition init_t shared_altsd_exec_t:process shared_altsd_t;\n" {
		t.Errorf("what systemd starts: %s", out)
	}

	contexts := filepath.Join(store, "etc/selinux/default/contexts/files/file_contexts")
	for path, want := range map[string]string{
		"/usr/bin/shared-altsd": "shared_altsd_exec_t", "/usr/bin/shared-altsd-signer": "shared_altsd_signer_exec_t",
		"/etc/shared-altsd": "shared_altsd_conf_t", "/etc/shared-altsd/machine.pem": "shared_altsd_key_t",
		"/etc/shared-altsd/ca.pem": "shared_altsd_conf_t", "/etc/shared-altsd/listen/www.conf": "shared_altsd_conf_t",
		"/run/shared-altsd/socket": "shared_altsd_runtime_t", "/run/shared-altsd-resolve/socket": "shared_altsd_runtime_t",
		"/var/lib/shared-altsd/marks": "shared_altsd_state_t", "/var/lib/shared-altsd-crl/ca.crl": "shared_altsd_lists_t",
	} {
		if got := must(t, "matchpathcon", "-f", contexts, "-n", path); got != "system_u:object_r:"+want+":s0\n" {
			t.Errorf("%s has the context %s", path, got)
		}
	}
	// The drop-ins are for units that the package has, and for domains of the module.
	for unit, domain := range map[string]string{"resolve": "shared_altsd_resolve_t", "fetch-crl": "shared_altsd_crl_t", "listen@": "unconfined_service_t"} {
		text, err := os.ReadFile(filepath.Join(dir, "usr/lib/systemd/system/shared-altsd-"+unit+".service.d/selinux.conf"))
		if err != nil || !strings.Contains(string(text), "SELinuxContext=-system_u:system_r:"+domain+":s0\n") {
			t.Errorf("of %s: %v %s", unit, err, text)
		}
		if _, err := os.Stat(filepath.Join(root, "deploy/systemd/shared-altsd-"+unit+".service")); err != nil {
			t.Error(err)
		}
		if len(p.allows("init_t", domain, "process", "transition")) == 0 {
			t.Errorf("systemd may not start %s", domain)
		}
	}
}

// exampleModule builds the module of docs/mac.md that lets a service of one's own connect, by the commands that stand there.
func exampleModule(t *testing.T, dir string) (pp string) {
	t.Helper()
	blocks := testdoc.Blocks(t, "docs/mac.md", "TestSELinuxPolicy")
	if len(blocks) != 2 {
		t.Fatalf("%d blocks, want the module and the commands", len(blocks))
	}
	work := filepath.Join(dir, "example")
	if err := os.MkdirAll(work, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(work, "example.te"), []byte(blocks[0]), 0o644); err != nil {
		t.Fatal(err)
	}
	// The interface is where the package has it on a system of its kind; here it stands beside, and counts by its module.
	must(t, "cp", "deploy/selinux/shared_altsd.if", "deploy/selinux/shared_altsd.te", work)
	build, _, found := strings.Cut(blocks[1], "semodule -i")
	if !found {
		t.Fatalf("nothing is loaded by %q", blocks[1])
	}
	must(t, "sh", "-ec", "cd "+work+"\n"+build)
	return filepath.Join(work, "example.pp")
}

// A policy is what a linked policy allows, read once: each start of sesearch goes through the whole.
type linkedPolicy struct {
	rules      []linkedRule
	attributes map[string][]string // of a type, and the type itself
}

type linkedRule struct {
	line                  string
	source, target, class string
	rights                []string
}

// rule is one line of sesearch's: source, target, class, rights, and behind them on what boolean it depends.
var rule = regexp.MustCompile(`^allow (\S+) (\S+):(\S+) (?:\{ ([^}]*) \}|(\S+));`)

func readPolicy(t *testing.T, file string, types ...string) *linkedPolicy {
	t.Helper()
	p := &linkedPolicy{attributes: map[string][]string{}}
	for _, line := range strings.Split(must(t, "sesearch", "-A", file), "\n") {
		if m := rule.FindStringSubmatch(line); m != nil {
			p.rules = append(p.rules, linkedRule{line, m[1], m[2], m[3], strings.Fields(m[4] + " " + m[5])})
		} else if line != "" {
			t.Fatalf("sesearch said %q", line)
		}
	}
	for _, name := range types {
		// The first line counts, the type is in the second, its attributes follow it.
		fields := strings.FieldsFunc(must(t, "seinfo", "-t", name, "-x", file), func(r rune) bool { return strings.ContainsRune(" \n\t,;", r) })
		i := slices.Index(fields, name)
		if i < 0 {
			t.Fatalf("seinfo has no type %s: %q", name, fields)
		}
		p.attributes[name] = fields[i:]
	}
	return p
}

// allows returns the rules by which one of a source's names has a right on one of a target's. An empty target is any.
func (p *linkedPolicy) allows(source, target, class, right string) (rules []string) {
	for _, r := range p.rules {
		if r.class == class && slices.Contains(r.rights, right) && slices.Contains(p.attributes[source], r.source) &&
			(target == "" || slices.Contains(p.attributes[target], r.target) || r.target == "self" && source == target) {
			rules = append(rules, r.line)
		}
	}
	return rules
}

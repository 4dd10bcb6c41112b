package listen

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/policy"
)

func TestParseTarget(t *testing.T) {
	for v, want := range map[string]string{"127.0.0.1:5432": "127.0.0.1:5432", "[::1]:5432": "[::1]:5432", "localhost:80": "127.0.0.1:80",
		"127.9.8.7:1": "127.9.8.7:1", "unix:/run/x": "unix:/run/x", "[::ffff:127.0.0.1]:80": "127.0.0.1:80"} {
		if got, err := ParseTarget(v); err != nil || got.String() != want {
			t.Errorf("%s: %v, %v", v, got, err)
		}
	}
	for v, cure := range map[string]string{"192.0.2.1:80": "run listen on its own machine", "0.0.0.0:80": "neither a loopback", ":80": "is not an address",
		"db.example.com:5432": "give 127.0.0.1:5432", "127.0.0.1": "127.0.0.1:5432", "127.0.0.1:0": "1 to 65535", "127.0.0.1:http": "1 to 65535",
		"unix:run/x": "absolute path", "unix:": "absolute path", "::1:80": "[::1]:80", "[fe80::1%lo]:80": "neither a loopback"} {
		if got, err := ParseTarget(v); err == nil || !strings.Contains(err.Error(), cure) {
			t.Errorf("%s: %v, %v", v, got, err)
		}
	}
}

func TestCheckListen(t *testing.T) {
	for _, v := range []string{":6432", "192.0.2.1:6432", "[::]:6432", "systemd:pg", "127.0.0.1:0"} {
		if err := CheckListen(v); err != nil {
			t.Errorf("%s: %v", v, err)
		}
	}
	for v, cure := range map[string]string{"systemd:": "FileDescriptorName=", "6432": "[HOST]:PORT", "beta.example.com:6432": "as in :6432",
		":pg": "0 to 65535", ":0": "give one", "::1:80": "[::1]:80"} {
		if err := CheckListen(v); err == nil || !strings.Contains(err.Error(), cure) {
			t.Errorf("%s: %v", v, err)
		}
	}
}

// good is a configuration with nothing wrong.
func good() *Config {
	return &Config{Listen: []string{":6432"}, Allow: []policy.PeerPattern{{}}, TargetAccount: "0",
		Target: Target{addr: netip.MustParseAddrPort("127.0.0.1:5432")}}
}

func TestConfigMistakes(t *testing.T) {
	if err := Check(good()); err != nil {
		t.Fatal(err)
	}
	unix := Target{path: "/run/x"}
	for name, c := range map[string]struct {
		spoil func(*Config)
		cure  string
	}{
		"no listen":       {func(c *Config) { c.Listen = nil }, "--listen :6432"},
		"no allow":        {func(c *Config) { c.Allow = nil }, "--allow 'alice@"},
		"no backend":      {func(c *Config) { c.Target, c.TargetAccount = Target{}, "" }, "give --target"},
		"two backends":    {func(c *Config) { c.Command = []string{"cat"} }, "give one of them"},
		"no account":      {func(c *Config) { c.TargetAccount = "" }, "--target-account postgres"},
		"no such account": {func(c *Config) { c.TargetAccount = "nosuchaccount" }, "the name or the uid"},
		"overflow":        {func(c *Config) { c.TargetAccount = "65534" }, "name one that is somebody's"},
		"account of ours": {func(c *Config) { c.Target, c.Command = Target{}, []string{"cat"} }, "leave it out"},
		"ident and UNIX":  {func(c *Config) { c.Target, c.Ident = unix, netip.MustParseAddr("127.7.0.1") }, "--target HOST:PORT"},
		"ident and IPv6": {func(c *Config) {
			c.Target.addr, c.Ident = netip.MustParseAddrPort("[::1]:1"), netip.MustParseAddr("127.7.0.1")
		}, "IPv4"},
		"ident and HTTP":   {func(c *Config) { c.HTTP, c.UnsafeHeader, c.Ident = true, true, netip.MustParseAddr("127.7.0.1") }, "one of them"},
		"HTTP and a port":  {func(c *Config) { c.HTTP = true }, "unix:PATH"},
		"HTTP and COMMAND": {func(c *Config) { c.HTTP, c.Target, c.TargetAccount, c.Command = true, Target{}, "", []string{"cat"} }, "server's address"},
		"unsafe for none":  {func(c *Config) { c.UnsafeHeader = true }, "leave it out"},
		"hold and TCP":     {func(c *Config) { c.Hold = true }, "leave it out"},
		"hold and HTTP":    {func(c *Config) { c.Hold, c.HTTP, c.Target = true, true, unix }, "leave it out"},
	} {
		bad := good()
		c.spoil(bad)
		if err := Check(bad); err == nil || !strings.Contains(err.Error(), c.cure) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestServiceByPort(t *testing.T) {
	listen := func(addr string) net.Listener {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	one := listen("127.0.0.1:0")
	_, port, _ := net.SplitHostPort(one.Addr().String())
	same, other := listen("127.0.0.2:"+port), listen("127.0.0.1:0")
	c := good()
	if got, err := c.service([]net.Listener{one, same}); got != port || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := c.service([]net.Listener{one, other}); err == nil || !strings.Contains(err.Error(), "no --service") {
		t.Errorf("%q, %v", got, err)
	}
	c.Service = "pg"
	if got, err := c.service([]net.Listener{one, other}); got != "pg" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// FuzzTarget has the value of --target.
func FuzzTarget(f *testing.F) {
	for _, v := range []string{"127.0.0.1:5432", "unix:/run/x", "[::1]:1", "localhost:1", "[::ffff:127.0.0.1]:80"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		got, err := ParseTarget(v)
		if err != nil {
			return
		}
		if again, err := ParseTarget(got.String()); err != nil || again != got {
			t.Errorf("%q is %v, which is %v, %v", v, got, again, err)
		}
	})
}

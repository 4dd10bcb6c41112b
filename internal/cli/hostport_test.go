package cli

import (
	"strings"
	"testing"
)

func TestHostPort(t *testing.T) {
	for v, want := range map[string]string{
		"a.test:1": "a.test|1", "[fd00::a]:7400": "fd00::a|7400", ":7400": "|7400", "192.0.2.1:1": "192.0.2.1|1",
		"fd00::a:7400": "write [fd00::a]:7400", "fe80::1%eth0:7400": "write [fe80::1%eth0]:7400", "::1:1": "write [::1]:1",
		"fd00::1": "write [fd00::1]:PORT", "fd00::beef": "write [fd00::beef]:PORT", "a.test": "is not HOST:PORT",
		"a:b:c": "is not HOST:PORT", "": "is not HOST:PORT", "[::1]": "is not HOST:PORT",
	} {
		host, port, err := HostPort(v)
		got := host + "|" + port
		if err != nil {
			got = err.Error()
		}
		if !strings.HasSuffix(got, want) {
			t.Errorf("%q: %q, want %q", v, got, want)
		}
	}
}

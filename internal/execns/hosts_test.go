package execns

import (
	"net"
	"slices"
	"testing"
)

func TestHosts(t *testing.T) {
	const before = "127.0.0.1 localhost\n169.254.169.254\tmetadata.google.internal metadata # Google's\n" +
		"::1 Metadata.Google.Internal.\n# metadata.google.internal\n10.0.0.1 a"
	const after = "127.9.9.9 metadata.google.internal metadata.google.internal.\n" +
		"::ffff:127.9.9.9 metadata.google.internal metadata.google.internal.\n" +
		"127.0.0.1 localhost\n169.254.169.254 metadata\n" +
		"# metadata.google.internal\n10.0.0.1 a"
	got := hostsWith([]byte(before), net.ParseIP("127.9.9.9"))
	if string(got) != after {
		t.Errorf("%s", got)
	}
	for name, want := range map[string][]string{
		"localhost": {"127.0.0.1"}, "METADATA.google.internal.": {"127.9.9.9", "::ffff:127.9.9.9"},
		"a": {"10.0.0.1"}, "b": nil,
	} {
		if addrs := hostsAddresses(got, name); !slices.Equal(addrs, want) {
			t.Errorf("%s: %q", name, addrs)
		}
	}
}

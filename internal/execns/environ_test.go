package execns

import (
	"net"
	"slices"
	"testing"
)

func TestEnviron(t *testing.T) {
	const names = "metadata.google.internal,metadata.google.internal."
	const proxied = "GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES="
	none := []string{"no_proxy=" + names, "NO_PROXY=" + names}
	with := func(more ...string) []string { return slices.Concat(none, more) }
	for _, c := range []struct{ env, want []string }{
		{nil, none},
		{[]string{"A=b", "NO_PROXY=x", "GCE_METADATA_HOST=169.254.169.254", "no_grpc_proxy=g", "SHARED_ALTS_SOCKET=/old"},
			[]string{"A=b", "no_proxy=x," + names, "NO_PROXY=x," + names, "no_grpc_proxy=g," + names}},
		{[]string{"no_proxy=l", "NO_PROXY=u"}, []string{"no_proxy=l," + names, "NO_PROXY=u," + names}},
		// Set, if to nothing, it hides no_proxy.
		{[]string{"no_grpc_proxy="}, with("no_grpc_proxy=" + names)},
		// All: for those who know the sign; C-core does not.
		{[]string{"no_proxy=*"}, []string{"no_proxy=*", "NO_PROXY=*", "no_grpc_proxy=" + names}},
		{[]string{"no_proxy=*", "NO_PROXY=u"}, []string{"no_proxy=*", "NO_PROXY=u," + names, "no_grpc_proxy=" + names}},
		{[]string{"no_grpc_proxy=*"}, with("no_grpc_proxy=*," + names)},
		{[]string{"no_proxy=*", "no_grpc_proxy=*"}, []string{"no_proxy=*", "NO_PROXY=*", "no_grpc_proxy=*," + names}},
		{[]string{"GRPC_PROXY_EXP=proxy:3128"}, none},
		{[]string{proxied + "10.0.0.0/8, 127.0.0.0/8,::/0,0.0.0.0/0,fd00::/8,::ffff:127.0.0.0/104,9.9,10.1.1.1, ,8.8.8.8"},
			with(proxied + "10.0.0.0/8,fd00::/8,10.1.1.1,8.8.8.8")},
	} {
		got := environ(c.env, "/s", net.IPv4(127, 80, 9, 9))
		if i := slices.Index(got, "SHARED_ALTS_SOCKET=/s"); i < 0 || !slices.Equal(slices.Delete(got, i, i+1), c.want) {
			t.Errorf("%q: %q", c.env, got)
		}
	}
}

package execns

import (
	"slices"
	"testing"
)

func TestEnviron(t *testing.T) {
	names := "metadata.google.internal,metadata.google.internal."
	for _, c := range []struct{ env, want []string }{
		{nil, []string{"no_proxy=" + names, "NO_PROXY=" + names}},
		{[]string{"A=b", "NO_PROXY=x", "GCE_METADATA_HOST=169.254.169.254", "no_grpc_proxy=g", "SHARED_ALTS_SOCKET=/old"}, []string{"A=b", "no_proxy=x," + names, "NO_PROXY=x," + names, "no_grpc_proxy=g," + names}},
		{[]string{"no_proxy=l", "NO_PROXY=u"}, []string{"no_proxy=l," + names, "NO_PROXY=u," + names}},
	} {
		got := environ(c.env, "/s")
		if i := slices.Index(got, "SHARED_ALTS_SOCKET=/s"); i < 0 || !slices.Equal(slices.Delete(got, i, i+1), c.want) {
			t.Errorf("%q: %q", c.env, got)
		}
	}
}

package daemon

import (
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/systemd"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// What the service manager passes is taken for what its name and kind say, and for nothing that it may not be.
func TestSortOut(t *testing.T) {
	listen := func(network, address string) net.Listener {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	path := filepath.Join(testprog.Dir(t), "socket")
	plain, second := listen("unix", path), listen("unix", path+"2")
	loopback, open := listen("tcp", "127.0.0.1:0"), listen("tcp", "0.0.0.0:0")
	abstract := listen("unix", "@shared-altsd-test-"+filepath.Base(filepath.Dir(path)))
	type given []systemd.Socket
	as := func(l net.Listener, name string) systemd.Socket { return systemd.Socket{Listener: l, Name: name} }
	for _, tt := range []struct {
		name    string
		given   given
		local   []string
		metrics net.Listener
		refusal string
	}{
		{"nothing", nil, nil, nil, ""},
		{"both", given{as(loopback, "metrics"), as(plain, "uids=1")}, []string{path}, loopback, ""},
		{"metrics on a UNIX socket", given{as(plain, "metrics")}, nil, plain, ""},
		{"two for metrics", given{as(plain, "metrics"), as(second, "metrics")}, []string{path + "2"}, plain, ""},
		{"metrics for everybody", given{as(open, "metrics")}, nil, nil, `("metrics"): metrics on `},
		{"applications by TCP", given{as(loopback, "x")}, nil, nil, `("x"): not a UNIX socket`},
		{"abstract", given{as(abstract, "")}, nil, nil, "abstract"},
	} {
		local, forMetrics, err := sortOut(tt.given)
		var paths []string
		for _, l := range local {
			paths = append(paths, l.path)
		}
		if (err != nil) != (tt.refusal != "") || err != nil && !strings.Contains(err.Error(), tt.refusal) ||
			strings.Join(paths, " ") != strings.Join(tt.local, " ") || forMetrics != tt.metrics {
			t.Errorf("%s: got %v, %v, %v", tt.name, paths, forMetrics, err)
		}
	}
}

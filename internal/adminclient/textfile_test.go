package adminclient

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/shared-altsd/shared-altsd/internal/adminpb"
)

// A daemon whose admin service has no metrics, as that of version 0.1.0, is not one that is down: the file stays.
func TestOlderDaemonIsNotDown(t *testing.T) {
	dir, err := os.MkdirTemp("", "altsd")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket, file := filepath.Join(dir, "s"), filepath.Join(dir, "shared-altsd.prom")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	adminpb.RegisterAdminServer(server, adminpb.UnimplementedAdminServer{})
	go server.Serve(l)
	const before = "shared_altsd_up{machine=\"a.test\"} 1\n"
	if err := os.WriteFile(file, []byte(before), 0o644); err != nil {
		t.Fatal(err)
	}
	client := Client{Socket: socket, DaemonUID: uint32(os.Getuid())}
	if err := client.WriteTextfile(file); err == nil || !strings.Contains(err.Error(), "restart it") {
		t.Errorf("an older daemon: %v", err)
	}
	if text, err := os.ReadFile(file); string(text) != before {
		t.Errorf("%q, %v", text, err)
	}
	server.Stop()
	if err := client.WriteTextfile(file); err == nil {
		t.Error("no daemon, and no error")
	}
	if text, err := os.ReadFile(file); !strings.Contains(string(text), "{machine=\"a.test\"} 0\n") {
		t.Errorf("%q, %v", text, err)
	}
}

package systemd

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

func TestNotifier(t *testing.T) {
	path := filepath.Join(testprog.Dir(t), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	n, err := NewNotifier()
	if err != nil {
		t.Fatal(err)
	}
	if _, there := os.LookupEnv("NOTIFY_SOCKET"); there {
		t.Error("a child would see NOTIFY_SOCKET")
	}
	for _, tt := range []struct {
		say  func()
		want string
	}{
		{func() { n.Ready("serving\nREADY=0") }, "READY=1\nSTATUS=serving; READY=0"},
		{n.Reloading, "RELOADING=1\nMONOTONIC_USEC="},
		{n.Watchdog, "WATCHDOG=1"},
		{n.Stopping, "STOPPING=1"},
	} {
		tt.say()
		b := make([]byte, 256)
		k, err := manager.Read(b)
		if got := string(b[:k]); err != nil || !strings.HasPrefix(got, tt.want) {
			t.Errorf("got %q, %v, want %q", got, err, tt.want)
		}
	}
	new(Notifier).Ready("nobody listens")
	t.Setenv("NOTIFY_SOCKET", path+"x")
	if _, err := NewNotifier(); err == nil || !strings.Contains(err.Error(), "NOTIFY_SOCKET") {
		t.Errorf("a socket that is not there: %v", err)
	}
}

func TestWatchdogInterval(t *testing.T) {
	for _, tt := range []struct {
		pid, usec string
		want      time.Duration
	}{
		{"", "", 0}, {"", "x", 0}, {"", "1", 0}, {"", "30000000", 15 * time.Second}, {"1", "30000000", 0},
		{"", "90000000000", 0},
	} {
		t.Setenv("WATCHDOG_PID", tt.pid)
		t.Setenv("WATCHDOG_USEC", tt.usec)
		if got := WatchdogInterval(); got != tt.want {
			t.Errorf("%+v: got %v", tt, got)
		}
	}
}

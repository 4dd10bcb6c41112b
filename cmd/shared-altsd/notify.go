package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/cli"
)

// A notifier tells the service manager what state the daemon is in (sd_notify(3)). Without NOTIFY_SOCKET it does
// nothing. A message that cannot be sent is dropped: the manager's own timeouts then act.
type notifier struct{ conn *net.UnixConn }

func newNotifier() (*notifier, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	os.Unsetenv("NOTIFY_SOCKET")
	if path == "" {
		return &notifier{}, nil
	}
	// Go takes a leading "@" as an abstract name, as systemd does.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("NOTIFY_SOCKET of the environment: %w", err)
	}
	return &notifier{conn}, nil
}

func (n *notifier) send(state string) {
	if n.conn == nil {
		return
	}
	n.conn.SetWriteDeadline(time.Now().Add(time.Second))
	n.conn.Write([]byte(state))
}

func (n *notifier) ready(status string) { n.send("READY=1\nSTATUS=" + cli.OneLine(status)) }

func (n *notifier) reloading() {
	var now unix.Timespec
	// CLOCK_MONOTONIC cannot fail; the manager wants it to tell this reload from an earlier one.
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	n.send(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

func (n *notifier) stopping() { n.send("STOPPING=1") }

func (n *notifier) watchdog() { n.send("WATCHDOG=1") }

// watchdogInterval is half of what the service manager allows between two signs of life, 0 if it wants none.
func watchdogInterval() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec < 2 || usec > int64(24*time.Hour/time.Microsecond) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 2
}

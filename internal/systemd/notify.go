// Package systemd is what a service has to do with systemd: notifications, inherited sockets, the journal's priorities.
package systemd

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A Notifier tells the service manager what state the daemon is in (sd_notify(3)). The zero Notifier does nothing. A
// message that cannot be sent is dropped: the manager's own timeouts then act.
type Notifier struct{ conn *net.UnixConn }

// NewNotifier returns the Notifier of NOTIFY_SOCKET, which it clears so that no child speaks for the daemon.
func NewNotifier() (*Notifier, error) {
	path := os.Getenv("NOTIFY_SOCKET")
	os.Unsetenv("NOTIFY_SOCKET")
	if path == "" {
		return &Notifier{}, nil
	}
	// Go takes a leading "@" as an abstract name, as systemd does.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("NOTIFY_SOCKET of the environment: %w", err)
	}
	return &Notifier{conn}, nil
}

func (n *Notifier) send(state string) {
	if n.conn == nil {
		return
	}
	n.conn.SetWriteDeadline(time.Now().Add(time.Second))
	n.conn.Write([]byte(state))
}

// Ready says that the daemon serves, or serves again after Reloading, with a line for people.
func (n *Notifier) Ready(status string) {
	// A line break would begin another variable.
	n.send("READY=1\nSTATUS=" + strings.ReplaceAll(status, "\n", "; "))
}

// Reloading says that the daemon begins to reload.
func (n *Notifier) Reloading() {
	var now unix.Timespec
	// CLOCK_MONOTONIC cannot fail; the manager wants it to tell this reload from an earlier one.
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	n.send(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

// Stopping says that the daemon begins to stop.
func (n *Notifier) Stopping() { n.send("STOPPING=1") }

// Watchdog is a sign of life, due at each WatchdogInterval.
func (n *Notifier) Watchdog() { n.send("WATCHDOG=1") }

// WatchdogInterval returns half of what the service manager allows between two signs of life, 0 if it wants none.
func WatchdogInterval() time.Duration {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	usec, err := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
	if err != nil || usec < 2 || usec > int64(24*time.Hour/time.Microsecond) {
		return 0
	}
	return time.Duration(usec) * time.Microsecond / 2
}

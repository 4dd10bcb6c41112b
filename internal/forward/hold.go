package forward

import (
	"context"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// AwaitHangup waits, without reading, until the program at the other end has closed its socket, or ctx ends.
func AwaitHangup(ctx context.Context, conn *net.UnixConn) {
	raw, err := conn.SyscallConn()
	if err != nil || conn.SetDeadline(time.Time{}) != nil {
		return // it is closed
	}
	defer context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })()
	_ = raw.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		_, err := unix.Poll(fds, 0)
		return err == nil && fds[0].Revents != 0
	})
}

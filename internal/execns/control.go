package execns

import (
	"encoding/binary"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// A control is one end of the socket between exec and the init of the command's PID namespace. exec sends signals for
// the command, init sends news of it, and each learns by its end that the other is no more.
type control int

// What init tells.
const (
	commandStopped = 'S'
	commandEnded   = 'E'
	redirected     = 'R' // by the command's stage: the descriptor by which the kernel asks, or none if that cannot be
)

// news is one message of init's: what happened, the command's wait status, and its pid, which the kernel translates
// into that of the reader's namespace; or a descriptor.
type news struct {
	kind   byte
	status syscall.WaitStatus
	pid    int
	fd     int // 0 if there is none
}

// controlPair returns exec's end and init's.
func controlPair() (ours, theirs control, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("a socket pair: %w", err)
	}
	if err := unix.SetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		return 0, 0, fmt.Errorf("SO_PASSCRED: %w", err)
	}
	return control(fds[0]), control(fds[1]), nil
}

// signal sends the command s, by way of init, whose child it is: its pid cannot have become another's.
func (c control) signal(s syscall.Signal) {
	unix.SendmsgN(int(c), []byte{byte(s)}, nil, nil, unix.MSG_NOSIGNAL)
}

// nextSignal returns the next signal for the command; false says that exec has ended.
func (c control) nextSignal() (syscall.Signal, bool) {
	var b [1]byte
	n, _, err := c.receive(b[:], nil)
	return syscall.Signal(b[0]), err == nil && n == 1
}

// tell sends exec news of the command, which has the pid in this namespace.
func (c control) tell(n news) error {
	b := binary.NativeEndian.AppendUint32([]byte{n.kind}, uint32(n.status))
	var oob []byte
	if n.pid != 0 {
		oob = unix.UnixCredentials(&unix.Ucred{Pid: int32(n.pid), Uid: uint32(unix.Getuid()), Gid: uint32(unix.Getgid())})
	}
	if n.fd != 0 {
		oob = append(oob, unix.UnixRights(n.fd)...)
	}
	_, err := unix.SendmsgN(int(c), b, oob, nil, unix.MSG_NOSIGNAL)
	return err
}

// nextNews returns the next news of the command; false says that init has ended.
func (c control) nextNews() (news, bool) {
	b, oob := make([]byte, 5), make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4))
	n, oobn, err := c.receive(b, oob)
	if err != nil || n != len(b) {
		return news{}, false
	}
	got := news{kind: b[0], status: syscall.WaitStatus(binary.NativeEndian.Uint32(b[1:]))}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return news{}, false
	}
	for _, m := range messages {
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			got.pid = int(cred.Pid)
		}
		if fds, err := unix.ParseUnixRights(&m); err == nil && len(fds) == 1 {
			got.fd = fds[0]
		}
	}
	return got, true
}

func (c control) receive(b, oob []byte) (n, oobn int, err error) {
	for {
		n, oobn, _, _, err = unix.Recvmsg(int(c), b, oob, unix.MSG_CMSG_CLOEXEC)
		if err != unix.EINTR {
			return n, oobn, err
		}
	}
}

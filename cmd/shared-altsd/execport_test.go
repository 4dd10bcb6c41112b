package main

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/shared-altsd/shared-altsd/internal/testnet"
	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// nowhere is where stock gRPC finds its handshaker service under exec, if connect(2) is redirected.
var nowhere = unix.SockaddrInet4{Port: 8080, Addr: [4]byte{239, 192, 80, 80}}

// listenEverywhere listens at an address that tests of other packages may have for a moment.
func listenEverywhere(t *testing.T, address string) net.Listener {
	t.Helper()
	for end := time.Now().Add(testprog.Patience); ; time.Sleep(10 * time.Millisecond) {
		l, err := net.Listen("tcp", address)
		if err == nil {
			return l
		}
		if !errors.Is(err, unix.EADDRINUSE) || time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// TestRule45PortIsShared has programs that listen on port 8080 at every address, as Java does, before exec and after.
func TestRule45PortIsShared(t *testing.T) {
	eachAccount(t, func(t *testing.T, e execTest) {
		caller := strings.Repeat(fmt.Sprintf("uid %d <nil> <nil>\n", e.uid), 2)
		for _, address := range []string{"0.0.0.0:8080", "[::]:8080"} {
			l := listenEverywhere(t, address)
			if got := e.output(t, e.program+" dial-handshaker"); got+"\n" != caller {
				t.Errorf("%s taken: %q", address, got)
			}
			l.Close()
		}
		cmd := e.command("sh", "-c", "echo ready; read line; "+e.program+" dial-handshaker")
		in, out := startPiped(t, cmd)
		lines := bufio.NewReader(out)
		if line, err := lines.ReadString('\n'); err != nil {
			t.Fatal(line, err)
		}
		defer listenEverywhere(t, ":8080").Close() // while exec runs
		fmt.Fprintln(in)
		for range 2 {
			if line, err := lines.ReadString('\n'); !strings.HasPrefix(line, "uid ") {
				t.Errorf("%q, %v", line, err)
			}
		}
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
}

// reachNowhere does what redirection does not catch, and prints what comes of it.
func reachNowhere() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil {
		_, err = unix.SendmsgN(fd, []byte("x"), nil, &nowhere, unix.MSG_FASTOPEN)
	}
	fmt.Println(err)
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err == nil { // of another size, which the filter does not know
		var raw [128]byte
		raw[0], raw[2], raw[3] = unix.AF_INET, 8080>>8, 8080&0xff
		copy(raw[4:], nowhere.Addr[:])
		err = rawConnect(fd, raw[:])
	}
	fmt.Println(err)
	os.Exit(0)
}

// TestRule45Nowhere takes the address that COMMAND has for the handshaker, as far as that goes. Nobody gets there, not
// even by what is not redirected, and not after exec.
func TestRule45Nowhere(t *testing.T) {
	eachAccount(t, func(t *testing.T, e execTest) {
		l, err := net.Listen("tcp4", "239.192.80.80:8080")
		if err == nil {
			defer l.Close()
			go func() {
				if c, err := l.Accept(); err == nil {
					t.Errorf("%v got there", c.RemoteAddr())
				}
			}()
		}
		want := strings.Repeat(unix.ENETUNREACH.Error()+"\n", 2)
		if got := e.output(t, e.program+" reach-nowhere"); got+"\n" != want {
			t.Errorf("%q", got)
		}
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &nowhere); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("without exec: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	})
}

// otherNetwork does what a gRPC library does, in a network namespace that it has come to since exec began.
func otherNetwork() {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err != nil {
		panic(err)
	}
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		panic(err)
	}
	lo.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo); err != nil {
		fmt.Println(err)
	}
	dialHandshaker()
}

// TestRule45OtherNetwork has COMMAND in a network namespace where the relay's address may be anybody's.
func TestRule45OtherNetwork(t *testing.T) {
	eachAccount(t, func(t *testing.T, e execTest) {
		out, err := e.command("unshare", "-rn", e.program, "other-network").CombinedOutput()
		if err == nil || !strings.Contains(string(out), unix.ENETUNREACH.Error()) ||
			!strings.Contains(string(out), "in another network namespace") {
			t.Errorf("%v %s", err, out)
		}
	})
}

// TestExecRedirects has connections of other kinds, which go where they are to go, and many at once.
func TestExecRedirects(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go testnet.ServeEach(l, func(c net.Conn) { fmt.Fprintln(c, "another") })
	eachAccount(t, func(t *testing.T, e execTest) {
		host, port, _ := net.SplitHostPort(l.Addr().String())
		const script = `eight() { for i in 1 2 3 4 5 6 7 8; do (exec 3<>/dev/tcp/$1/$2; echo "$(cat <&3)") & done; wait; }
			eight $1 $2; eight metadata.google.internal. 8080; exec 3<>/dev/tcp/metadata.google.internal/8081`
		cmd := e.command("bash", "-c", script, "bash", host, port)
		out, err := cmd.Output()
		if err == nil {
			t.Error("another port of the handshaker's name was reached")
		}
		lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
		slices.Sort(lines)
		caller := fmt.Sprintf("uid %d <nil> ", e.uid)
		want := slices.Concat(slices.Repeat([]string{"another"}, 8), slices.Repeat([]string{caller}, 8))
		if !slices.Equal(lines, want) {
			t.Errorf("%q", lines)
		}
		// Inside another exec, where the kernel does not let it redirect, and where it is told not to.
		for _, inner := range [][]string{{"exec", "--", e.program, "dial-handshaker"}, {"exec", "--loopback", "--", e.program,
			"dial-handshaker"}} {
			got := e.output(t, e.program+" "+strings.Join(inner, " "))
			if want := strings.Repeat(caller+"<nil>\n", 2); got+"\n" != want {
				t.Errorf("%q: %q", inner, got)
			}
		}
	})
}

func rawConnect(fd int, address []byte) error {
	if _, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&address[0])),
		uintptr(len(address))); errno != 0 {
		return errno
	}
	return nil
}

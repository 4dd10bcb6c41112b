package main

import (
	"bufio"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// raceRounds is how often TestRule42Race kills; the variable sets another number (make exec-race).
const (
	raceRounds         = 50
	raceRoundsVariable = "SHARED_ALTSD_EXEC_RACE_ROUNDS"
)

// beStranger binds the address given on each line of its input for as long as it takes, and says on a line of output
// what came of it when the next line has come: how often it got the address, and how many connected to it.
func beStranger() {
	lines := make(chan string)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			lines <- in.Text()
		}
		close(lines)
	}()
	for line := range lines {
		addr := netip.MustParseAddrPort(line)
		got, reached := 0, 0
		for stop := false; !stop; {
			select {
			case <-lines:
				stop = true
			default:
			}
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				fmt.Println(err)
				os.Exit(1)
			}
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			if unix.Bind(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}) == nil &&
				unix.Listen(fd, 100) == nil {
				got++
				// At today's speeds whoever still connects does so within a small part of this.
				for n, _ := poll(fd); n > 0 && reached < 1000; n, _ = poll(fd) {
					if c, _, err := unix.Accept(fd); err == nil {
						unix.Close(c)
						reached++
					}
				}
			}
			unix.Close(fd)
		}
		fmt.Println(got, reached)
	}
	os.Exit(0)
}

func poll(fd int) (int, error) {
	return unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10)
}

// childOf returns the child of the process that has the pid in its own PID namespace, or any if that is 0.
func childOf(t *testing.T, parent, pid int) int {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		b, _ := os.ReadFile(file) // it may have ended
		status := string(b)
		if !strings.Contains(status, fmt.Sprintf("\nPPid:\t%d\n", parent)) {
			continue
		}
		_, pids, _ := strings.Cut(status, "\nNSpid:")
		pids, _, _ = strings.Cut(pids, "\n")
		list := strings.Fields(pids)
		if pid == 0 || list[len(list)-1] == strconv.Itoa(pid) {
			n, _ := strconv.Atoi(list[0])
			return n
		}
	}
	t.Fatalf("process %d has no child %d", parent, pid)
	return 0
}

// TestRule42Race kills exec, the init of COMMAND's namespace, and COMMAND in turn, while processes that COMMAND left
// behind connect without end, and an account of a stranger tries without end to take the relay's address. None of them
// may ever reach it.
func TestRule42Race(t *testing.T) {
	rounds := raceRounds
	if v := os.Getenv(raceRoundsVariable); v != "" {
		var err error
		if rounds, err = strconv.Atoi(v); err != nil {
			t.Fatal(err)
		}
	}
	eachAccount(t, func(t *testing.T, e execTest) {
		rounds := rounds
		if e.uid == 0 {
			rounds /= 10 // root's differs in the user namespace alone
		}
		stranger := exec.Command(e.program, "be-stranger")
		stranger.Env = []string{beMain + "=1", noRaceSleep}
		if os.Geteuid() == 0 {
			stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54399, Gid: 54399}}
		}
		in, out := startPiped(t, stranger)
		defer stranger.Wait()
		defer in.Close()
		said := bufio.NewReader(out)
		taken := 0
		for round := range rounds {
			got, reached := e.raceRound(t, round, "--loopback", in, said)
			if reached > 0 {
				t.Errorf("round %d: %d connections reached a stranger", round, reached)
			}
			taken += got
			if t.Failed() {
				return
			}
		}
		// Where connect(2) is redirected, both holders may be killed at once: nobody is at the address ever.
		for round := range rounds / 10 {
			if _, reached := e.raceRound(t, round, "", in, said); reached > 0 {
				t.Errorf("redirected, round %d: %d connections reached a stranger", round, reached)
			}
		}
		left, _ := filepath.Glob(filepath.Join(filepath.Dir(e.program), "tmp", "*")) // nobody was there to remove them
		for _, dir := range left {
			os.RemoveAll(dir)
		}
		if taken < rounds {
			t.Errorf("in %d rounds the stranger got the address %d times, so he was not there in time", rounds, taken)
		}
	})
}

// raceRound runs one exec, kills one of its processes, or two where connect(2) is redirected, and returns how often the
// stranger got the address after that, and how many connections.
func (e execTest) raceRound(t *testing.T, round int, mode string, in io.Writer, said *bufio.Reader) (got, reached int) {
	t.Helper()
	const script = `a=$(head -n1 /etc/hosts); a=${a%% *}; trap "" HUP
		connect() { while :; do exec 3<>/dev/tcp/$a/8080; done 2>/dev/null; }
		connect & connect & (connect &); echo $a $$; while :; do sleep 1000; done`
	cmd := e.command("bash", "-c", script)
	if mode != "" {
		cmd.Args = slices.Insert(cmd.Args, 2, mode)
	}
	cmd.SysProcAttr = orNew(cmd.SysProcAttr)
	cmd.SysProcAttr.Setpgid = true
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	group := cmd.Process.Pid
	defer cmd.Wait()
	defer syscall.Kill(-group, syscall.SIGKILL)
	var addr string
	var pid int
	if _, err := fmt.Fscan(out, &addr, &pid); err != nil {
		t.Fatal(err)
	}
	init := childOf(t, cmd.Process.Pid, 0)
	victims := []int{cmd.Process.Pid, init}
	if mode == "--loopback" {
		victims = append(victims, childOf(t, init, pid))[round%3:][:1]
	}
	fmt.Fprintf(in, "%s:8080\n", addr)
	time.Sleep(time.Duration(round%5) * time.Millisecond)
	for _, victim := range victims {
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	// What is left has all of this pipe closed when nothing is left.
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, out)
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Errorf("round %d: 30 s later something is left", round)
		syscall.Kill(-group, syscall.SIGKILL)
	}
	cmd.Process.Wait() // now the address is free
	time.Sleep(5 * time.Millisecond)
	fmt.Fprintln(in, "stop")
	if _, err := fmt.Fscan(said, &got, &reached); err != nil {
		t.Fatal(err)
	}
	return got, reached
}

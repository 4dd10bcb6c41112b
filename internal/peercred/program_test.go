package peercred

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// roleVariable makes the test binary a process that calls itself what the variable says, connects to the socket that is its
// argument, and ends when its input does.
const roleVariable = "SHARED_ALTSD_PROGRAM"

func TestMain(m *testing.M) {
	name, is := os.LookupEnv(roleVariable)
	if !is {
		os.Exit(m.Run())
	}
	if err := os.WriteFile("/proc/self/comm", []byte(name), 0); err != nil {
		panic(err)
	}
	c, err := net.Dial("unix", os.Args[1])
	if err != nil {
		panic(err)
	}
	os.Stdout.WriteString("connected\n")
	bufio.NewReader(os.Stdin).ReadByte()
	c.Close()
}

// The name of the process that connected, which can be anything, is bounded and holds no character that means something
// in a log; once the process has ended there is none.
func TestProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for says, want := range map[string]string{"greeter_server": "greeter_server", "a b\n\x1b[31m=\"\\x\xff": "a?b??[31m???x?",
		"longer than fifteen bytes": "longer?than?fif"} {
		cmd := exec.Command("/proc/self/exe", path)
		cmd.Env = append(os.Environ(), roleVariable+"="+says)
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		c, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		cred, err := FromConn(c)
		if err != nil {
			t.Fatal(err)
		}
		if got := Program(c, cred); got != want {
			t.Errorf("a process that calls itself %q is %q, want %q", says, got, want)
		}
		in.Close()
		cmd.Wait()
		if got := Program(c, cred); got != "" {
			t.Errorf("a process that has ended is %q", got)
		}
		c.Close()
	}
}

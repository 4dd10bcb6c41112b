package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// stageName is the name under which exec starts itself a second time, inside the new namespaces: a Go program cannot
// enter a user namespace once it runs, for it has several threads by then.
const stageName = "shared-altsd-exec-stage"

// stage prepares the namespaces that it runs in and becomes COMMAND. Its arguments are the pid of exec, the relay's
// address ("-" if nothing is to be mounted), and COMMAND.
func stage(args []string) error {
	if len(args) < 3 {
		return usagef("this is for shared-altsd exec alone")
	}
	parent, view, command := args[0], args[1], args[2:]
	runtime.LockOSThread()
	if view != "-" {
		if err := mountView(net.ParseIP(view)); err != nil {
			return execFailed(err)
		}
		if err := dropAmbient(); err != nil {
			return execFailed(err)
		}
	}
	// A service manager names the process that its sockets are for.
	if os.Getenv("LISTEN_PID") == parent {
		os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	// Without the relay COMMAND could make no call any more: a SIGKILL of exec is meant for both.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return execFailed(fmt.Errorf("PR_SET_PDEATHSIG: %w", err))
	}
	if strconv.Itoa(os.Getppid()) != parent {
		return execFailed(errors.New("exec was killed"))
	}
	path, err := exec.LookPath(command[0])
	if err == nil || errors.Is(err, exec.ErrDot) {
		err = unix.Exec(path, command, os.Environ())
		if err == unix.ENOEXEC { // a script without a first line that names its shell
			err = unix.Exec("/bin/sh", append([]string{"sh", path}, command[1:]...), os.Environ())
		}
		err = &fs.PathError{Op: "run", Path: path, Err: err}
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		complain(fmt.Errorf("command not found: %s (%w)", command[0], err))
		return exitStatus(statusNotFound)
	}
	complain(fmt.Errorf("cannot run %s: %w", command[0], err))
	return exitStatus(statusCannotRun)
}

// mountView makes the mounts by which this mount namespace shows the platform and the handshaker's address.
func mountView(addr net.IP) error {
	// What the host mounts later shows up here; nothing from here shows up there.
	if err := mount("none", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("%w (%s)", err, namespaceCure)
	}
	hosts, err := os.ReadFile(hostsFile)
	if err != nil {
		return fmt.Errorf("%w: create it, empty if need be", err)
	}
	// The new files stand in a tmpfs that lies over a directory only until they have been mounted in their places.
	scratch, err := scratchDir()
	if err != nil {
		return err
	}
	if err := mount("tmpfs", scratch, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return fmt.Errorf("%w (%s)", err, namespaceCure)
	}
	newHosts := filepath.Join(scratch, "hosts")
	if err := os.WriteFile(newHosts, hostsWith(hosts, addr), 0o644); err != nil {
		return err
	}
	if err := mount(newHosts, hostsFile, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if _, err := os.Stat(productNameFile); err == nil {
		name := filepath.Join(scratch, "product_name")
		if err := os.WriteFile(name, []byte(productName+"\n"), 0o644); err != nil {
			return err
		}
		if err := mount(name, productNameFile, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	} else if err := addDMI(scratch); err != nil {
		return err
	}
	if err := unix.Unmount(scratch, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting %s: %w", scratch, err)
	}
	return nil
}

func scratchDir() (string, error) {
	for _, dir := range []string{"/tmp", "/run", "/mnt", "/var"} {
		if info, err := os.Lstat(dir); err == nil && info.IsDir() {
			return dir, nil
		}
	}
	return "", errors.New("none of /tmp, /run, /mnt and /var is there: create /tmp")
}

// addDMI gives a machine without DMI a product name: /sys/class is remade in memory, with its entries mounted back.
func addDMI(scratch string) error {
	const class = "/sys/class"
	original := filepath.Join(scratch, "class")
	if err := os.Mkdir(original, 0o755); err != nil {
		return err
	}
	if err := mount(class, original, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("%w (is /sys mounted?)", err)
	}
	entries, err := os.ReadDir(original)
	if err != nil {
		return err
	}
	if err := mount("tmpfs", class, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755"); err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != "dmi" {
			if err := mountBack(filepath.Join(original, e.Name()), filepath.Join(class, e.Name()), e.Type()); err != nil {
				return err
			}
		}
	}
	if err := os.MkdirAll(filepath.Dir(productNameFile), 0o755); err != nil {
		return err
	}
	return os.WriteFile(productNameFile, []byte(productName+"\n"), 0o644)
}

// mountBack makes to show what from is.
func mountBack(from, to string, kind fs.FileMode) error {
	switch {
	case kind&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case kind.IsDir():
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
	default:
		if err := os.WriteFile(to, nil, 0o644); err != nil {
			return err
		}
	}
	return mount(from, to, "", unix.MS_BIND|unix.MS_REC, "")
}

func mount(source, target, kind string, flags uintptr, data string) error {
	if err := unix.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mounting over %s: %w", target, err)
	}
	return nil
}

// hostsWith gives a hosts file in which addr has the handshaker's names, and nothing else has. It stands there in its
// IPv6 form too: a resolver that found no IPv6 address in the file would ask the network for one, wait for the answer,
// and believe it.
func hostsWith(hosts []byte, addr net.IP) []byte {
	out := fmt.Appendf(nil, "%[1]s %[2]s %[2]s.\n::ffff:%[1]s %[2]s %[2]s.\n", addr, handshakerName)
	for line := range bytes.Lines(hosts) {
		fields := hostsFields(line)
		kept := fields[:min(len(fields), 1)]
		for _, name := range fields[len(kept):] {
			if !isHandshaker(name) {
				kept = append(kept, name)
			}
		}
		switch {
		case len(kept) == len(fields):
			out = append(out, line...)
		case len(kept) > 1:
			out = append(out, strings.Join(kept, " ")+"\n"...)
		}
	}
	return out
}

// hostsAddresses gives the addresses that a hosts file has for name, in its order and as they are written.
func hostsAddresses(hosts []byte, name string) (addrs []string) {
	for line := range bytes.Lines(hosts) {
		fields := hostsFields(line)
		if slices.ContainsFunc(fields[min(len(fields), 1):], func(f string) bool { return strings.EqualFold(f, name) }) {
			addrs = append(addrs, fields[0])
		}
	}
	return addrs
}

// hostsFields gives address and names of a line, without the comment.
func hostsFields(line []byte) []string {
	text, _, _ := strings.Cut(string(line), "#")
	return strings.Fields(text)
}

func isHandshaker(name string) bool {
	return strings.EqualFold(strings.TrimSuffix(name, "."), handshakerName)
}

// dropAmbient gives up the capability that the mounts needed. Root has it by being root, and keeps it.
func dropAmbient() error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("dropping ambient capabilities: %w", err)
	}
	if os.Geteuid() == 0 {
		return nil
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&header, &none[0]); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	return nil
}

// defaultAction gives s back the action that it has in a new process. A struct sigaction of zeros says so on every
// architecture; none has one longer than this.
func defaultAction(s syscall.Signal) {
	var action [64]byte
	unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&action)), 0, 8, 0, 0)
}

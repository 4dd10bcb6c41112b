package execns

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Stock gRPC takes a machine for one of Google's cloud if this file reads so.
const (
	productNameFile = "/sys/class/dmi/id/product_name"
	productName     = "Google Compute Engine"
)

// mountView makes the mounts by which this mount namespace shows the platform and the handshaker's address.
func mountView(addr net.IP) error {
	// What the host mounts later shows up here; nothing from here shows up there.
	if err := mount("none", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return &Error{NoNamespace, err}
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
		return &Error{NoNamespace, err}
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

// mountProc lets the new PID namespace see itself in /proc. A container that hides parts of its own /proc lets nobody
// mount another: there /proc/self is right all the same, and only the pids under /proc are those of the container.
func mountProc() error {
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	var old unix.Statfs_t
	if err := unix.Statfs("/proc", &old); err == nil && old.Flags&unix.ST_RDONLY != 0 {
		flags |= unix.MS_RDONLY
	}
	if err := mount("proc", "/proc", "proc", flags, ""); err != nil && !errors.Is(err, unix.EPERM) {
		return err
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

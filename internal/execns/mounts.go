package execns

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// Stock gRPC takes a machine for one of Google's cloud if this file reads so.
const (
	productNameFile = "/sys/class/dmi/id/product_name"
	productName     = "Google Compute Engine"
)

// A view is what this mount namespace shows instead of the machine's: the platform, and the handshaker's address.
type view struct {
	dir  string // where a tmpfs with our files stays mounted
	addr net.IP
	made int
	busy sync.Mutex // held while our files are shown anew
}

// mount makes all mounts.
func (v *view) mount() error {
	// What the host mounts later shows up here; nothing from here shows up there.
	if err := mount("none", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return &Error{NoNamespace, err}
	}
	if err := os.Mkdir(v.dir, 0o700); err != nil {
		return err
	}
	if err := mount("tmpfs", v.dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return &Error{NoNamespace, err}
	}
	for _, f := range v.files() {
		if err := v.replace(f); err != nil {
			return fmt.Errorf("%w: %s", err, f.missing)
		}
	}
	if err := hideNSCD(); err != nil {
		return err
	}
	if _, err := os.Stat(productNameFile); err == nil {
		name := filepath.Join(v.dir, "product_name")
		if err := os.WriteFile(name, []byte(productName+"\n"), 0o644); err != nil {
			return err
		}
		return mount(name, productNameFile, "", unix.MS_BIND, "")
	}
	return addDMI(v.dir)
}

// A viewFile is a file of the machine's that is shown changed.
type viewFile struct {
	path    string
	change  func([]byte) []byte
	missing string // the cure where it does not exist
}

func (v *view) files() []viewFile {
	return []viewFile{
		{nsswitchFile, nsswitchWith, "create it, with the line \"hosts: files dns\""},
		{hostsFile, func(b []byte) []byte { return hostsWith(b, v.addr) }, "create it, empty if need be"},
	}
}

// replace mounts the changed file over the one that is there: over the very one that it read, since another may take its
// place meanwhile.
func (v *view) replace(f viewFile) error {
	there, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer there.Close()
	text, err := io.ReadAll(there)
	if err != nil {
		return err
	}
	v.made++ // the one that was shown before may still be in use
	changed := filepath.Join(v.dir, fmt.Sprint(filepath.Base(f.path), v.made))
	if err := os.WriteFile(changed, f.change(text), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(changed, fmt.Sprint("/proc/self/fd/", there.Fd()), "", unix.MS_BIND, ""); err != nil {
		os.Remove(changed)
		return fmt.Errorf("mounting over %s: %w", f.path, err)
	}
	return nil
}

// shown reports whether f.path still shows our file, and not the machine's.
func (v *view) shown(f viewFile) bool {
	var there, ours unix.Stat_t
	return unix.Stat(f.path, &there) == nil && unix.Stat(v.dir, &ours) == nil && there.Dev == ours.Dev
}

// hideNSCD hides the name service cache, if it is there and not hidden yet. Its daemon lives outside and would answer from
// the machine's own files, or from the network.
func hideNSCD() error {
	for _, dir := range nscdDirs {
		real, err := filepath.EvalSymlinks(dir)
		if err != nil {
			continue
		}
		var there, parent unix.Stat_t
		if unix.Stat(real, &there) != nil || unix.Stat(filepath.Dir(real), &parent) != nil || there.Dev != parent.Dev {
			continue
		}
		if err := mount("tmpfs", real, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755"); err != nil {
			return err
		}
	}
	return nil
}

// nscdDirs is where C libraries look for the name service cache's socket.
var nscdDirs = []string{"/run/nscd", "/var/run/nscd"}

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

// addDMI returns a machine without DMI a product name: /sys/class is remade in memory, with its entries mounted back.
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
	if err := unix.Unmount(original, unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmounting %s: %w", original, err)
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

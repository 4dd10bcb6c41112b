package execns

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// viewPatience bounds how long a file may be gone that is being replaced.
	viewPatience = time.Second
	// viewInterval is how often the files are looked at where the kernel does not tell of changes (an account has a few
	// inotify instances only).
	viewInterval = 500 // ms
)

// keep shows our files anew when they are gone, and returns if that fails. When a file on the machine is replaced by a
// new one, as editors and configuration managers do it, the kernel takes our mount away with the old one: the name
// would be asked of the network from then on. Between that and the new mount lie 2 ms of a busy machine. A mount over
// all of /etc would have no such gap, but root's programs could not replace files there any more.
func (v *view) keep() error {
	table, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer table.Close()
	changes := []unix.PollFd{{Fd: int32(table.Fd()), Events: unix.POLLPRI}}
	wait := viewInterval
	// The mounts do not change where a symlink is turned to another file.
	if fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK); err == nil {
		defer unix.Close(fd)
		const mask = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVE
		_, err := unix.InotifyAddWatch(fd, filepath.Dir(hostsFile), mask)
		unix.InotifyAddWatch(fd, filepath.Dir(nscdDirs[0]), mask) // where there is a /run
		if err == nil {
			changes, wait = append(changes, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}), -1
		}
	}
	for {
		if err := v.showAgain(); err != nil {
			return err
		}
		if _, err := unix.Poll(changes, wait); err != nil && err != unix.EINTR {
			return fmt.Errorf("waiting for changes of the mounts: %w", err)
		}
		if len(changes) > 1 {
			var events [4096]byte
			unix.Read(int(changes[1].Fd), events[:]) // that there were some is all
		}
	}
}

// showAgain shows our files where they are not shown.
func (v *view) showAgain() error {
	v.busy.Lock()
	defer v.busy.Unlock()
	for _, f := range v.files() {
		for giveUp := time.Now().Add(viewPatience); !v.shown(f); {
			err := v.replace(f)
			if err != nil && time.Now().After(giveUp) {
				return fmt.Errorf("%s was removed, so the handshaker's name would be asked of the network: %w", f.path, err)
			}
			if err != nil {
				time.Sleep(time.Millisecond) // not there again yet
			}
		}
	}
	return hideNSCD()
}

// end ends keep and takes the directory of our files away.
func (v *view) end() {
	v.busy.Lock() // and never unlocks
	unix.Unmount(v.dir, unix.MNT_DETACH)
}

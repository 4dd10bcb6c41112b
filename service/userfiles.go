package service

import (
	"bufio"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// userFiles is what the files of this machine say. Of a uid it decides how a lookup queues and nothing else: uids with a
// line in /etc/passwd are accounts, those in a range of /etc/subuid are what a user can make up by the thousand. A name that
// a socket gives out is refused if /etc/passwd has it (vacancies.go), and where domains of directories are named, who has a line
// there is of none (directory.go).
type userFiles struct {
	passwd, subuid string // paths

	mu       sync.Mutex
	looked   time.Time
	seen     [2]os.FileInfo // nil while there is no such file
	accounts map[uint32]bool
	names    map[string]string // of /etc/passwd, by themselves in lower case
	lines    map[passwdLine]bool
	ranges   []UIDRange
}

// A passwdLine is what a line of /etc/passwd says, its name in lower case.
type passwdLine struct {
	uid  uint32
	name string
}

const (
	userFilesEach = time.Second // between two looks at whether the files have changed
	userFileBytes = 16 << 20    // of a file, what is read
)

func newUserFiles() *userFiles { return &userFiles{passwd: "/etc/passwd", subuid: "/etc/subuid"} }

// class returns what kind of uid it is, as far as the files tell.
func (f *userFiles) class(uid uint32) uidClass {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.look()
	switch {
	case f.accounts[uid]:
		return known
	case f.ranges != nil && UIDRanges(f.ranges).contains(uid):
		return subordinate
	}
	return stranger
}

// has reports whether /etc/passwd has the account.
func (f *userFiles) has(uid uint32, lower string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.look()
	return f.lines[passwdLine{uid, lower}]
}

// spelling returns how /etc/passwd writes a name that is given in lower case, "" if it has none such.
func (f *userFiles) spelling(name string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.look()
	return f.names[name]
}

// look reads what has changed, once in userFilesEach; f.mu is held.
func (f *userFiles) look() {
	if now := time.Now(); now.Sub(f.looked) >= userFilesEach {
		f.looked = now
		f.refresh()
	}
}

func (f *userFiles) refresh() {
	if changed(f.passwd, &f.seen[0]) {
		f.accounts, f.names, f.lines = make(map[uint32]bool), make(map[string]string), make(map[passwdLine]bool)
		eachLine(f.passwd, func(fields []string) {
			f.names[ascii.Lower(fields[0])] = fields[0]
			if uid, err := strconv.ParseUint(fields[2], 10, 32); err == nil {
				f.accounts[uint32(uid)] = true
				f.lines[passwdLine{uint32(uid), ascii.Lower(fields[0])}] = true
			}
		})
	}
	if changed(f.subuid, &f.seen[1]) {
		f.ranges = nil
		eachLine(f.subuid, func(fields []string) {
			first, err1 := strconv.ParseUint(fields[1], 10, 32)
			n, err2 := strconv.ParseUint(fields[2], 10, 32)
			if err1 == nil && err2 == nil && n > 0 && first+n <= 1<<32 {
				f.ranges = append(f.ranges, UIDRange{uint32(first), uint32(first + n - 1)})
			}
		})
	}
}

// changed reports whether a file is another than the one that was seen, and notes it.
func changed(path string, seen *os.FileInfo) bool {
	now, err := os.Stat(path)
	if err != nil {
		now = nil
	}
	was := *seen
	*seen = now
	if now == nil || was == nil {
		return now != nil || was != nil
	}
	return !os.SameFile(now, was) || now.Size() != was.Size() || !now.ModTime().Equal(was.ModTime())
}

// eachLine calls do for the lines that have three fields or more.
func eachLine(path string, do func(fields []string)) {
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer file.Close()
	for s := bufio.NewScanner(io.LimitReader(file, userFileBytes)); s.Scan(); {
		if fields := strings.Split(s.Text(), ":"); len(fields) >= 3 {
			do(fields)
		}
	}
}

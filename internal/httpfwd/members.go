package httpfwd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	membersAge = 30 * time.Second // for which an answer about a group serves
	failureAge = 2 * time.Second  // and for which none does, so that no peer's requests start a program each
	getentTime = 5 * time.Second
)

var known = struct {
	sync.Mutex
	groups map[uint32]membership
}{groups: map[uint32]membership{}}

type membership struct {
	uids []uint32
	err  error
	ends time.Time
}

// membersOf returns the accounts that are in a group: those that the user database has as its members, and those whose
// primary group it is. A database that does not tell all its accounts, as directory services are often set up, tells the
// members that the group's own entry names.
func membersOf(gid uint32) ([]uint32, error) {
	known.Lock()
	defer known.Unlock()
	if k, ok := known.groups[gid]; ok && time.Now().Before(k.ends) {
		return k.uids, k.err
	}
	k := membership{}
	k.uids, k.err = members(gid)
	k.ends = time.Now().Add(membersAge)
	if k.err != nil {
		k.ends = time.Now().Add(failureAge)
	}
	known.groups[gid] = k // no more of them than the administrator's path has
	return k.uids, k.err
}

func members(gid uint32) (uids []uint32, err error) {
	group := strconv.FormatUint(uint64(gid), 10)
	accounts := map[string]uint32{}
	passwd, err := database("passwd", "")
	if err != nil {
		return nil, err
	}
	for _, f := range passwd {
		uid, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil {
			continue
		}
		accounts[f[0]] = uint32(uid)
		if f[3] == group {
			uids = append(uids, uint32(uid))
		}
	}
	for _, key := range []string{"", group} {
		groups, err := database("group", key)
		if err != nil {
			return nil, err
		}
		for _, f := range groups {
			if f[2] != group || f[3] == "" {
				continue
			}
			for name := range strings.SplitSeq(f[3], ",") {
				uid, ok := accounts[name]
				if !ok {
					return nil, fmt.Errorf("its member %s is not told by getent passwd", name)
				}
				uids = append(uids, uid)
			}
		}
	}
	return uids, nil
}

// database returns the entries of one of the user databases, of all or of one key, by getent where there is one; else from
// its file.
func database(name, key string) (entries [][]string, err error) {
	out, err := os.ReadFile("/etc/" + name)
	if getent, lookErr := exec.LookPath("/usr/bin/getent"); lookErr == nil {
		ctx, cancel := context.WithTimeout(context.Background(), getentTime)
		defer cancel()
		args := []string{name}
		if key != "" {
			args = append(args, key)
		}
		cmd := exec.CommandContext(ctx, getent, args...)
		cmd.Env = []string{"LC_ALL=C"}
		if out, err = cmd.Output(); err != nil {
			const notFound = 2
			if e, ok := errors.AsType[*exec.ExitError](err); ok && e.ExitCode() == notFound && key != "" {
				return nil, nil
			}
			return nil, fmt.Errorf("getent %s: %w", name, err)
		}
	}
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(out)) {
		if f := strings.Split(strings.TrimSuffix(line, "\n"), ":"); len(f) >= 4 {
			entries = append(entries, f)
		}
	}
	return entries, nil
}

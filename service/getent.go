package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/timerslack"
)

// getentUsers runs getent(1), which asks NSS in a process that can be killed: that of the GNU C library, or of musl,
// which knows neither "--" nor initgroups.
type getentUsers struct{ path string }

// output runs a program of the system; exit is its status. No argument of ours may be taken for an option.
func output(ctx context.Context, path string, args ...string) (out []byte, exit int, err error) {
	for _, a := range args[1:] {
		if strings.HasPrefix(a, "-") {
			return nil, 0, errNoUser
		}
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = []string{"LC_ALL=C"}
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	if err = timerslack.Inherited(cmd.Start); err == nil {
		err = cmd.Wait()
	}
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		exit = e.ExitCode()
	}
	return stdout.Bytes(), exit, err
}

// entry returns the fields of the first line for a key, errNoUser for getent's exit status 2, and for the empty output
// that GNU's has for a name with a colon.
func (g getentUsers) entry(ctx context.Context, database, key string, least int) ([]string, error) {
	out, exit, err := output(ctx, g.path, database, key)
	switch {
	case exit == 2 || err == nil && len(out) == 0:
		return nil, errNoUser
	case err != nil:
		return nil, fmt.Errorf("getent %s: %w", database, err)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	f := strings.Split(string(line), ":")
	if len(f) < least {
		return nil, fmt.Errorf("getent %s: the entry has fewer than %d fields", database, least)
	}
	return f, nil
}

func (g getentUsers) byUID(ctx context.Context, uid uint32) (userEntry, error) {
	f, err := g.entry(ctx, "passwd", strconv.FormatUint(uint64(uid), 10), 4)
	if err != nil {
		return userEntry{}, err
	}
	if strings.HasPrefix(f[0], "-") || strings.HasPrefix(f[0], "+") {
		return userEntry{name: f[0], uid: uid}, nil // GNU's prints no uid for such a name, which nobody may have
	}
	u, err := newUserEntry(f[0], f[2], f[3])
	if err == nil && u.uid != uid {
		return userEntry{}, errNoUser
	}
	return u, err
}

// uidOf has id(1) look for a name of digits alone, which getent takes for a uid. id asks for the name first, and takes
// for a uid what is none, which then is the uid of another name than this or leads nowhere.
func (g getentUsers) uidOf(ctx context.Context, name string) (uint32, error) {
	if onlyDigits(name) {
		return idUID(ctx, name)
	}
	f, err := g.entry(ctx, "passwd", name, 4)
	if err != nil {
		return 0, err
	}
	u, err := newUserEntry(f[0], f[2], f[3])
	return u.uid, err
}

func idUID(ctx context.Context, name string) (uint32, error) {
	path, err := exec.LookPath("id")
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errCannotAsk, err)
	}
	out, exit, err := output(ctx, path, "-u", name)
	switch {
	case exit == 1:
		return 0, errNoUser
	case err != nil:
		return 0, fmt.Errorf("id -u: %w", err)
	}
	return parseID(strings.TrimSuffix(string(out), "\n"))
}

// gidOf compares names of digits alone, which getent takes for a gid.
func (g getentUsers) gidOf(ctx context.Context, group string) (uint32, error) {
	f, err := g.entry(ctx, "group", group, 3)
	if err != nil {
		return 0, err
	}
	if onlyDigits(group) && f[0] != group {
		return 0, errNoUser
	}
	return parseID(f[2])
}

// gids are what a login would get. Exit status 1 is that of a getent without initgroups, musl's: the C library there
// goes through all groups, so we do.
func (g getentUsers) gids(ctx context.Context, u userEntry) ([]uint32, error) {
	out, exit, err := output(ctx, g.path, "initgroups", u.name)
	if exit == 1 {
		return g.enumerated(ctx, u)
	}
	if err != nil {
		return nil, fmt.Errorf("getent initgroups: %w", err)
	}
	var gids []uint32
	for i, f := range strings.Fields(string(out)) {
		if i == 0 { // the name
			continue
		}
		gid, err := parseID(f)
		if err != nil {
			return nil, fmt.Errorf("getent initgroups: %w", err)
		}
		gids = append(gids, gid)
	}
	return gids, nil
}

func (g getentUsers) enumerated(ctx context.Context, u userEntry) ([]uint32, error) {
	out, _, err := output(ctx, g.path, "group")
	if err != nil {
		return nil, fmt.Errorf("getent group: %w", err)
	}
	var gids []uint32
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) < 4 || !slices.Contains(strings.Split(f[3], ","), u.name) {
			continue // musl's prints no fourth field where there is no member
		}
		gid, err := parseID(f[2])
		if err != nil {
			return nil, fmt.Errorf("getent group: %w", err)
		}
		gids = append(gids, gid)
	}
	return gids, nil
}

// lists is for sources that do not have gids.
func (g getentUsers) lists(context.Context, userEntry, string) (bool, error) { return false, nil }

func onlyDigits(s string) bool { return strings.Trim(s, "0123456789") == "" }

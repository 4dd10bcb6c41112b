package service

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"os/user"
	"strconv"
)

// A userSource is a user database as it is, before any rule: errNoUser if it has no such entry, errCannotAsk if it
// cannot tell, so that the next one is to be asked. Which spellings of a name are the same is the database's affair.
// Each method is one query, or two quick ones.
type userSource interface {
	byUID(ctx context.Context, uid uint32) (userEntry, error)
	// uidOf returns the uid to which the name of an account leads, gidOf the gid to which that of a group does.
	uidOf(ctx context.Context, name string) (uint32, error)
	gidOf(ctx context.Context, group string) (uint32, error)
	// gids returns the groups that the user is a member of, as far as the source can name them; lists reports whether a
	// group is one of the others.
	gids(ctx context.Context, u userEntry) ([]uint32, error)
	lists(ctx context.Context, u userEntry, group string) (bool, error)
}

var (
	errNoUser    = errors.New("no such user or group")
	errCannotAsk = errors.New("cannot be asked for this")
	// errOtherSpelling says that the database has the name in another spelling, which leads nowhere from this one.
	errOtherSpelling = errors.New("it has the name in another spelling")
)

type userEntry struct {
	name     string
	uid, gid uint32
}

func newUserEntry(name, uid, gid string) (userEntry, error) {
	u, err := parseID(uid)
	if err != nil {
		return userEntry{}, fmt.Errorf("uid of an entry: %w", err)
	}
	g, err := parseID(gid)
	if err != nil {
		return userEntry{}, fmt.Errorf("gid of an entry: %w", err)
	}
	return userEntry{name, u, g}, nil
}

func parseID(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err
}

// osUsers is package os/user: NSS in a build with cgo, /etc/passwd and /etc/group in one without.
type osUsers struct{}

func (osUsers) byUID(_ context.Context, uid uint32) (userEntry, error) {
	u, err := user.LookupId(strconv.FormatUint(uint64(uid), 10))
	if err != nil {
		return userEntry{}, osError(err)
	}
	return newUserEntry(u.Username, u.Uid, u.Gid)
}

func (osUsers) uidOf(_ context.Context, name string) (uint32, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, osError(err)
	}
	return parseID(u.Uid)
}

func (osUsers) gidOf(_ context.Context, group string) (uint32, error) {
	g, err := user.LookupGroup(group)
	if err != nil {
		return 0, osError(err)
	}
	return parseID(g.Gid)
}

func osError(err error) error {
	var unknownID user.UnknownUserIdError
	var unknownName user.UnknownUserError
	var unknownGroup user.UnknownGroupError
	if errors.As(err, &unknownID) || errors.As(err, &unknownName) || errors.As(err, &unknownGroup) {
		return errNoUser
	}
	return err
}

// gids asks getent where os/user gives up, which with cgo it does at more than 2048 groups.
func (osUsers) gids(ctx context.Context, u userEntry) ([]uint32, error) {
	list, err := (&user.User{Username: u.name, Gid: strconv.FormatUint(uint64(u.gid), 10)}).GroupIds()
	if err != nil {
		if path, lookErr := exec.LookPath("getent"); lookErr == nil {
			return getentUsers{path}.gids(ctx, u)
		}
		return nil, err
	}
	var gids []uint32
	for _, s := range list {
		gid, err := parseID(s)
		if err != nil {
			return nil, err
		}
		gids = append(gids, gid)
	}
	return gids, nil
}

func (osUsers) lists(context.Context, userEntry, string) (bool, error) { return false, nil }

// helperUsers asks the first of the sources that are there and can tell. It looks at each query which are: a database
// that comes up after the daemon is found.
type helperUsers struct {
	varlink string // path of systemd-userdbd's socket
	getent  string // name of the program
}

// users are the sources of accounts. groups has getent before userdbd, which asks NSS for all groups of a user at once.
func (h helperUsers) users() []userSource {
	return append([]userSource{varlinkUsers{h.varlink}}, h.getentAndFiles()...)
}

func (h helperUsers) groups() []userSource {
	if s := h.getentAndFiles(); len(s) > 1 {
		return s
	}
	return h.users()
}

func (h helperUsers) getentAndFiles() []userSource {
	if path, err := exec.LookPath(h.getent); err == nil {
		return []userSource{getentUsers{path}, osUsers{}}
	}
	return []userSource{osUsers{}}
}

// first returns what the first source says that can tell. Where systemd-userdbd failed, that the files do not know a name
// says nothing; where it has the name in another spelling, an error says that as well.
func first[T any](sources []userSource, query func(userSource) (T, error)) (v T, err error) {
	var failed, spelled error
	for i, s := range sources {
		v, err = query(s)
		if last := i == len(sources)-1; last && failed != nil && errors.Is(err, errNoUser) {
			return v, failed
		}
		if !errors.Is(err, errCannotAsk) {
			break
		}
		if errors.Is(err, errOtherSpelling) {
			spelled = err
		}
		if errors.Is(err, errFailed) {
			failed = err
		}
	}
	if spelled != nil && errors.Is(err, errNoUser) {
		err = fmt.Errorf("%w; %w", err, spelled)
	}
	return v, err
}

func (h helperUsers) byUID(ctx context.Context, uid uint32) (userEntry, error) {
	return first(h.users(), func(s userSource) (userEntry, error) { return s.byUID(ctx, uid) })
}

func (h helperUsers) uidOf(ctx context.Context, name string) (uint32, error) {
	return first(h.users(), func(s userSource) (uint32, error) { return s.uidOf(ctx, name) })
}

func (h helperUsers) gidOf(ctx context.Context, group string) (uint32, error) {
	return first(h.groups(), func(s userSource) (uint32, error) { return s.gidOf(ctx, group) })
}

func (h helperUsers) gids(ctx context.Context, u userEntry) ([]uint32, error) {
	return first(h.groups(), func(s userSource) ([]uint32, error) { return s.gids(ctx, u) })
}

func (h helperUsers) lists(ctx context.Context, u userEntry, group string) (bool, error) {
	return first(h.groups(), func(s userSource) (bool, error) { return s.lists(ctx, u, group) })
}

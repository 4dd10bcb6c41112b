package service

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/timerslack"
)

// A userSource is a user database as it is, before any rule: errNoUser if it has no such entry.
type userSource interface {
	byUID(ctx context.Context, uid uint32) (userEntry, error)
	byName(ctx context.Context, name string) (userEntry, error)
	// groups returns those of wanted that the user is a member of, its primary group among them, in the order of wanted.
	groups(ctx context.Context, u userEntry, wanted []string) ([]string, error)
}

type userEntry struct {
	name     string
	uid, gid uint32
}

// osUsers is package os/user: NSS in a build with cgo, /etc/passwd and /etc/group in one without.
type osUsers struct{}

func (osUsers) byUID(_ context.Context, uid uint32) (userEntry, error) {
	return osUser(user.LookupId(strconv.FormatUint(uint64(uid), 10)))
}

func (osUsers) byName(_ context.Context, name string) (userEntry, error) {
	return osUser(user.Lookup(name))
}

func osUser(u *user.User, err error) (userEntry, error) {
	var unknownID user.UnknownUserIdError
	var unknownName user.UnknownUserError
	if errors.As(err, &unknownID) || errors.As(err, &unknownName) {
		return userEntry{}, errNoUser
	}
	if err != nil {
		return userEntry{}, err
	}
	return newUserEntry(u.Username, u.Uid, u.Gid)
}

func newUserEntry(name, uid, gid string) (userEntry, error) {
	u, err := strconv.ParseUint(uid, 10, 32)
	if err != nil {
		return userEntry{}, fmt.Errorf("uid of an entry: %w", err)
	}
	g, err := strconv.ParseUint(gid, 10, 32)
	if err != nil {
		return userEntry{}, fmt.Errorf("gid of an entry: %w", err)
	}
	return userEntry{name, uint32(u), uint32(g)}, nil
}

func (osUsers) groups(_ context.Context, u userEntry, wanted []string) ([]string, error) {
	gids, err := (&user.User{Username: u.name, Gid: strconv.FormatUint(uint64(u.gid), 10)}).GroupIds()
	if err != nil {
		return nil, err
	}
	var member []string
	for _, name := range wanted {
		g, err := user.LookupGroup(name)
		var unknown user.UnknownGroupError
		if errors.As(err, &unknown) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if slices.Contains(gids, g.Gid) {
			member = append(member, name)
		}
	}
	return member, nil
}

// helperUsers chooses at each lookup: a database that comes up after the daemon is found.
type helperUsers struct {
	varlink string // path of systemd-userdbd's socket
	getent  string // name of the program
}

func (h helperUsers) choose() userSource {
	if c, err := net.Dial("unix", h.varlink); err == nil {
		c.Close()
		return varlinkUsers{h.varlink}
	}
	if path, err := exec.LookPath(h.getent); err == nil {
		return getentUsers{path}
	}
	return osUsers{}
}

func (h helperUsers) byUID(ctx context.Context, uid uint32) (userEntry, error) {
	return h.choose().byUID(ctx, uid)
}

func (h helperUsers) byName(ctx context.Context, name string) (userEntry, error) {
	return h.choose().byName(ctx, name)
}

func (h helperUsers) groups(ctx context.Context, u userEntry, wanted []string) ([]string, error) {
	return h.choose().groups(ctx, u, wanted)
}

// getentUsers runs getent(1), which asks NSS in a process that can be killed.
type getentUsers struct{ path string }

// run returns the fields of the first line, split at sep; errNoUser for getent's exit status 2.
func (g getentUsers) run(ctx context.Context, database, key, sep string) ([]string, error) {
	cmd := exec.CommandContext(ctx, g.path, "--", database, key)
	cmd.Env = []string{"LC_ALL=C"}
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	err := timerslack.Inherited(cmd.Start)
	if err == nil {
		err = cmd.Wait()
	}
	out := stdout.Bytes()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == 2 {
		return nil, errNoUser
	}
	if err != nil {
		return nil, fmt.Errorf("getent %s: %w", database, err)
	}
	line, _, _ := bytes.Cut(out, []byte("\n"))
	if sep == " " {
		return strings.Fields(string(line)), nil
	}
	return strings.Split(string(line), sep), nil
}

func (g getentUsers) passwd(ctx context.Context, key string) (userEntry, error) {
	f, err := g.run(ctx, "passwd", key, ":")
	if err != nil {
		return userEntry{}, err
	}
	if len(f) < 4 {
		return userEntry{}, errors.New("getent passwd: the entry has fewer than 4 fields")
	}
	return newUserEntry(f[0], f[2], f[3])
}

func (g getentUsers) byUID(ctx context.Context, uid uint32) (userEntry, error) {
	u, err := g.passwd(ctx, strconv.FormatUint(uint64(uid), 10))
	if err == nil && u.uid != uid {
		return userEntry{}, errNoUser
	}
	return u, err
}

// byName compares the name, because getent takes a key of digits for a uid.
func (g getentUsers) byName(ctx context.Context, name string) (userEntry, error) {
	u, err := g.passwd(ctx, name)
	if err == nil && u.name != name {
		return userEntry{}, errNoUser
	}
	return u, err
}

func (g getentUsers) groups(ctx context.Context, u userEntry, wanted []string) ([]string, error) {
	gids, err := g.run(ctx, "initgroups", u.name, " ")
	if err != nil {
		return nil, err
	}
	gids = append(gids[min(1, len(gids)):], strconv.FormatUint(uint64(u.gid), 10)) // the first field is the name
	var member []string
	for _, name := range wanted {
		f, err := g.run(ctx, "group", name, ":")
		if errors.Is(err, errNoUser) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if len(f) >= 3 && f[0] == name && slices.Contains(gids, f[2]) {
			member = append(member, name)
		}
	}
	return member, nil
}

// varlinkUsers speaks Varlink to systemd-userdbd (systemd.io, "User/Group Record Lookup API via Varlink"), which
// multiplexes NSS and systemd's own sources.
type varlinkUsers struct{ path string }

const (
	userdbSocket  = "/run/systemd/userdb/io.systemd.Multiplexer"
	userdbMethods = "io.systemd.UserDatabase."
	userdbReply   = 1 << 20 // bytes of all the replies to one call
)

// call sends one method call and hands each reply's parameters to each; more asks for several replies.
func (v varlinkUsers) call(ctx context.Context, method string, params map[string]any, more bool,
	each func(json.RawMessage) error) error {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", v.path)
	if err != nil {
		return fmt.Errorf("systemd-userdbd: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	params["service"] = "io.systemd.Multiplexer"
	req, err := json.Marshal(map[string]any{"method": userdbMethods + method, "parameters": params, "more": more})
	if err != nil {
		return fmt.Errorf("systemd-userdbd: %w", err)
	}
	if _, err := conn.Write(append(req, 0)); err != nil {
		return fmt.Errorf("systemd-userdbd: %w", err)
	}
	r := bufio.NewReader(io.LimitReader(conn, userdbReply))
	for {
		b, err := r.ReadBytes(0)
		if err != nil {
			return fmt.Errorf("systemd-userdbd: reply: %w", err)
		}
		var reply struct {
			Parameters json.RawMessage `json:"parameters"`
			Error      string          `json:"error"`
			Continues  bool            `json:"continues"`
		}
		if err := json.Unmarshal(b[:len(b)-1], &reply); err != nil {
			return fmt.Errorf("systemd-userdbd: reply: %w", err)
		}
		switch reply.Error {
		case "":
		case userdbMethods + "NoRecordFound", userdbMethods + "ConflictingRecordFound",
			userdbMethods + "NonMatchingRecordFound":
			return errNoUser
		default:
			return fmt.Errorf("systemd-userdbd: error %.80q", reply.Error)
		}
		if err := each(reply.Parameters); err != nil {
			return fmt.Errorf("systemd-userdbd: reply: %w", err)
		}
		if !reply.Continues {
			return nil
		}
	}
}

func (v varlinkUsers) user(ctx context.Context, params map[string]any) (userEntry, error) {
	var p struct {
		Record struct {
			UserName *string `json:"userName"`
			UID      *uint32 `json:"uid"`
			GID      *uint32 `json:"gid"`
		} `json:"record"`
	}
	err := v.call(ctx, "GetUserRecord", params, false, func(b json.RawMessage) error { return json.Unmarshal(b, &p) })
	if err != nil {
		return userEntry{}, err
	}
	r := p.Record
	if r.UserName == nil || r.UID == nil {
		return userEntry{}, errors.New("systemd-userdbd: the record has no name or no uid")
	}
	gid := *r.UID // a record without gid means a private group of the same number
	if r.GID != nil {
		gid = *r.GID
	}
	return userEntry{*r.UserName, *r.UID, gid}, nil
}

func (v varlinkUsers) byUID(ctx context.Context, uid uint32) (userEntry, error) {
	u, err := v.user(ctx, map[string]any{"uid": uid})
	if err == nil && u.uid != uid {
		return userEntry{}, errNoUser
	}
	return u, err
}

func (v varlinkUsers) byName(ctx context.Context, name string) (userEntry, error) {
	u, err := v.user(ctx, map[string]any{"userName": name})
	if err == nil && u.name != name {
		return userEntry{}, errNoUser
	}
	return u, err
}

func (v varlinkUsers) groups(ctx context.Context, u userEntry, wanted []string) ([]string, error) {
	in := make(map[string]bool)
	err := v.call(ctx, "GetMemberships", map[string]any{"userName": u.name}, true, func(b json.RawMessage) error {
		var p struct {
			UserName  string `json:"userName"`
			GroupName string `json:"groupName"`
		}
		err := json.Unmarshal(b, &p)
		if p.UserName == u.name {
			in[p.GroupName] = true
		}
		return err
	})
	if err != nil && !errors.Is(err, errNoUser) {
		return nil, err
	}
	err = v.call(ctx, "GetGroupRecord", map[string]any{"gid": u.gid}, false, func(b json.RawMessage) error {
		var p struct {
			Record struct {
				GroupName string  `json:"groupName"`
				GID       *uint32 `json:"gid"`
			} `json:"record"`
		}
		err := json.Unmarshal(b, &p)
		if p.Record.GID != nil && *p.Record.GID == u.gid {
			in[p.Record.GroupName] = true
		}
		return err
	})
	if err != nil && !errors.Is(err, errNoUser) {
		return nil, err
	}
	var member []string
	for _, name := range wanted {
		if in[name] {
			member = append(member, name)
		}
	}
	return member, nil
}

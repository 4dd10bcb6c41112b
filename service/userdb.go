package service

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
)

// varlinkUsers speaks Varlink to systemd-userdbd (systemd.io, "User/Group Record Lookup API via Varlink"), which
// multiplexes NSS and systemd's own sources.
type varlinkUsers struct{ path string }

const (
	userdbSocket  = "/run/systemd/userdb/io.systemd.Multiplexer"
	userdbMethods = "io.systemd.UserDatabase."
	userdbReply   = 1 << 20 // bytes of all the replies to one call
)

var errFailed = errors.New("it failed")

// dial connects; errCannotAsk where systemd-userdbd does not run.
func (v varlinkUsers) dial(ctx context.Context) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unix", v.path)
	if err != nil && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", errCannotAsk, err)
	}
	if err != nil {
		return nil, fmt.Errorf("systemd-userdbd: %w", err)
	}
	return conn, nil
}

// call sends one method call and hands each reply's parameters to each; more asks for several replies.
func (v varlinkUsers) call(ctx context.Context, method string, params map[string]any, more bool,
	each func(json.RawMessage) error) error {
	conn, err := v.dial(ctx)
	if err != nil {
		return err
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
		case userdbMethods + "NoRecordFound":
			return errNoUser
		case userdbMethods + "ConflictingRecordFound", userdbMethods + "NonMatchingRecordFound":
			return fmt.Errorf("systemd-userdbd: %w, since %w (%s)", errCannotAsk, errOtherSpelling, reply.Error)
		case "org.varlink.service.InvalidParameter":
			// A name that systemd takes for none: that of digits alone.
			return fmt.Errorf("systemd-userdbd: %w (%s)", errCannotAsk, reply.Error)
		case "io.systemd.System", userdbMethods + "ServiceNotAvailable":
			// Any failure; of a name that systemd takes for none, and of its uid, it says one of these.
			return fmt.Errorf("systemd-userdbd: %w, nor is there a getent that can: %w (%s)", errCannotAsk, errFailed, reply.Error)
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

func (v varlinkUsers) uidOf(ctx context.Context, name string) (uint32, error) {
	u, err := v.user(ctx, map[string]any{"userName": name})
	return u.uid, err
}

func (v varlinkUsers) gidOf(ctx context.Context, group string) (uint32, error) {
	var p struct {
		Record struct {
			GID *uint32 `json:"gid"`
		} `json:"record"`
	}
	err := v.call(ctx, "GetGroupRecord", map[string]any{"groupName": group}, false,
		func(b json.RawMessage) error { return json.Unmarshal(b, &p) })
	if err != nil {
		return 0, err
	}
	if p.Record.GID == nil {
		return 0, errors.New("systemd-userdbd: the group's record has no gid")
	}
	return *p.Record.GID, nil
}

// gids returns none: systemd-userdbd finds the groups of a user by going through all groups, which a directory does not
// list. lists asks it about one.
func (v varlinkUsers) gids(ctx context.Context, _ userEntry) ([]uint32, error) {
	conn, err := v.dial(ctx)
	if err != nil {
		return nil, err
	}
	return nil, conn.Close()
}

func (v varlinkUsers) lists(ctx context.Context, u userEntry, group string) (bool, error) {
	found := false
	params := map[string]any{"userName": u.name, "groupName": group}
	err := v.call(ctx, "GetMemberships", params, true, func(b json.RawMessage) error {
		var p struct {
			UserName string `json:"userName"`
		}
		err := json.Unmarshal(b, &p)
		found = found || p.UserName == u.name
		return err
	})
	if errors.Is(err, errNoUser) {
		return false, nil
	}
	return found, err
}

package ident

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/sockowner"
)

const (
	// maxQueries bounds the queries that are read at once, all of the server's account or root's.
	maxQueries = 256
	// queryTime bounds each, from accept to answer.
	queryTime = 5 * time.Second
	// silence is between two lines in the log that say the same.
	silence = time.Minute
)

// drain turns away who connected before this forward began, at a socket that the service manager held: they ask about
// connections of others.
func (i *Ident) drain() {
	for begun := time.Now(); i.listener.SetDeadline(begun.Add(20*time.Millisecond)) == nil; {
		c, err := i.listener.AcceptTCP()
		if err != nil {
			break
		}
		reset(c)
	}
	i.listener.SetDeadline(time.Time{})
}

func (i *Ident) serve() {
	for {
		c, err := i.listener.AcceptTCP()
		if i.ctx.Err() != nil {
			if err == nil {
				reset(c)
			}
			return
		}
		if err != nil { // no descriptor, or no memory
			select {
			case <-time.After(50 * time.Millisecond):
			case <-i.ctx.Done():
			}
			continue
		}
		if !i.invited(c) {
			reset(c)
			continue
		}
		select {
		case i.places <- struct{}{}:
		case <-i.ctx.Done():
			reset(c)
			return
		}
		i.serving.Go(func() {
			defer func() { <-i.places }()
			i.answer(c)
		})
	}
}

// invited says whether the query is the server's or root's. Nobody else's is read: an answer would tell an account of this
// machine which connections there are, and take a place from the server.
func (i *Ident) invited(c *net.TCPConn) bool {
	o, err := sockowner.Lookup(c)
	if err != nil { // it is gone
		return false
	}
	if i.servers(o.UID) {
		return true
	}
	i.warn("ident was asked by another account than the server's, which is not answered", "uid", o.UID)
	return false
}

// servers says whether a uid may be the server's: root's is, of servers that begin as root.
func (i *Ident) servers(uid uint32) bool { return uid == i.c.Account || uid == 0 }

// warn logs something that any account can bring about.
func (i *Ident) warn(text string, args ...any) {
	i.mu.Lock()
	now := time.Now()
	again := now.Sub(i.said[text]) < silence
	if !again {
		i.said[text] = now
	}
	i.mu.Unlock()
	if !again {
		i.c.Log.Warn(text, append(args, "ident", i.c.Addr.String())...)
	}
}

// answer reads one query and answers it in one write.
func (i *Ident) answer(c *net.TCPConn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(queryTime))
	// A forward that stops waits for nobody.
	defer context.AfterFunc(i.ctx, func() { c.SetDeadline(time.Unix(1, 0)) })()
	patience := time.NewTimer(queryTime)
	defer patience.Stop()
	line, err := readLine(c)
	if err != nil {
		return
	}
	ours, theirs, err := parseQuery(line)
	if errors.Is(err, errPort) {
		c.Write([]byte("0, 0 : ERROR : INVALID-PORT\r\n"))
	}
	if err != nil {
		return
	}
	asker := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	target := netip.AddrPortFrom(asker, theirs)
	text := fmt.Sprintf("%d , %d : ERROR : NO-USER\r\n", ours, theirs)
	if user, found := i.whose(ours, target, patience.C); found {
		text = fmt.Sprintf("%d , %d : USERID : UNIX : %s\r\n", ours, theirs, user)
	} else {
		i.warn("ident was asked about a connection that is not this forward's, or not any more: another program of this machine may "+
			"connect from its address", "port", ours, "target", target.String())
	}
	c.Write([]byte(text))
}

// reset ends a connection without leaving anything of it.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

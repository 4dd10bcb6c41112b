package altscreds

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/shared-altsd/shared-altsd/internal/altspb"
)

// Connections that stand are watched: one stream to the daemon says which of them are refused by now.

const (
	// watchBatch is how many bytes of records a request may have, about; the daemon takes 128 KiB.
	watchBatch   = 48 << 10
	watchAtOnce  = 512 // connections in a request; the daemon takes 1024
	removeAtOnce = 4096
	// watchMost is the longest pause before the daemon is asked again.
	watchMost = time.Minute
	// watchGather is how long what is to be said waits for more: a connection that is closed by then costs the daemon nothing.
	// A change in between is not lost, since a connection is judged when it is presented.
	watchGather = 100 * time.Millisecond
)

// Variables for tests, of daemonConns.mu: a watcher has those of its beginning.
var (
	// watchFirst is within how long a lost stream is begun again: a restarted daemon hears of all programs at once.
	watchFirst = 2 * time.Second
	// watchIdle is how long the stream outlives the last connection, and how often it is looked whether the process
	// is still who it was.
	watchIdle = daemonIdle
)

// A watching is a connection that is watched.
type watching struct {
	by       *watcher
	id       uint64
	standing *altspb.Standing
	sent     bool // on the stream there is; of by.mu
}

// A watcher has the connections watched that were made under one identity, by one daemon.
type watcher struct {
	d           *daemonConn
	ctx         context.Context
	end         context.CancelFunc
	first, rest time.Duration // watchFirst and watchIdle

	mu      sync.Mutex
	conns   map[uint64]*Conn
	last    uint64
	todo    []uint64 // to be presented; some may be closed by now
	gone    []uint64 // to be taken off
	wake    chan struct{}
	running bool
}

// newWatcher makes a watcher; daemonConns.mu is held.
func newWatcher(d *daemonConn) *watcher {
	w := &watcher{d: d, first: watchFirst, rest: watchIdle, conns: make(map[uint64]*Conn), wake: make(chan struct{}, 1)}
	w.ctx, w.end = context.WithCancel(context.Background())
	return w
}

// add has a connection watched from now on; c.mu is held.
func (w *watcher) add(c *Conn, s *altspb.Standing) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ctx.Err() != nil {
		return // it was made under another identity
	}
	w.last++
	c.watching = &watching{by: w, id: w.last, standing: s}
	w.conns[w.last] = c
	w.todo = append(w.todo, w.last)
	w.notify()
	if !w.running {
		w.running = true
		go w.run()
	}
}

// remove takes a connection off that is closed.
func (w *watcher) remove(k *watching) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns[k.id] == nil {
		return
	}
	delete(w.conns, k.id)
	if k.sent {
		w.gone = append(w.gone, k.id)
		w.notify()
	}
}

// notify has the stream look; w.mu is held.
func (w *watcher) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// stop lets go of all connections, which stand unwatched, and of the stream.
func (w *watcher) stop() {
	w.end()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.conns, w.todo, w.gone = make(map[uint64]*Conn), nil, nil
}

// run keeps a stream until there has been no connection for a while. A daemon that stays away, or does not know what is
// asked, ends nothing.
func (w *watcher) run() {
	defer w.d.watched()
	pause := w.first
	for {
		began := time.Now()
		moved := w.stream()
		if w.idle() {
			return
		}
		switch {
		case moved:
			pause = w.first
			continue
		case time.Since(began) > watchMost:
			pause = w.first
		}
		// All of the pause is chance, so that programs that have lost the daemon together do not come back so.
		select {
		case <-time.After(rand.N(pause)):
		case <-w.ctx.Done():
		}
		pause = min(2*pause, watchMost)
	}
}

// idle reports whether there is nothing to watch, after which the next connection begins anew.
func (w *watcher) idle() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.conns) > 0 && w.ctx.Err() == nil {
		return false
	}
	w.running = false
	return true
}

// busy reports whether a stream is kept.
func (w *watcher) busy() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.running
}

type watchStream = grpc.BidiStreamingClient[altspb.WatchRequest, altspb.WatchAnswer]

var watchDesc = &grpc.StreamDesc{StreamName: altspb.WatchName, ServerStreams: true, ClientStreams: true}

// stream presents all connections on a new stream, and those to come, until it ends. It reports whether the daemon asked
// for another.
func (w *watcher) stream() (moved bool) {
	ctx, cancel := context.WithCancel(w.ctx)
	defer cancel()
	w.mu.Lock()
	w.todo, w.gone = w.todo[:0], nil
	for id, c := range w.conns {
		c.watching.sent = false
		w.todo = append(w.todo, id)
	}
	w.notify()
	w.mu.Unlock()
	raw, err := w.d.rpc.NewStream(ctx, watchDesc, altspb.WatchMethod)
	if err != nil {
		return false
	}
	stream := &grpc.GenericClientStream[altspb.WatchRequest, altspb.WatchAnswer]{ClientStream: raw}
	answered, move, sender := make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(sender)
		w.send(ctx, stream, answered, move)
	}()
	defer func() { cancel(); <-sender }()
	seen := uint64(0)
	for {
		a, err := stream.Recv()
		if err != nil {
			return moved
		}
		for _, e := range a.GetEnded() {
			w.ended(e)
		}
		if a.GetMove() && !moved {
			moved = true
			close(move)
		}
		if n := a.GetAnswered(); n > seen {
			seen = n
			select {
			case answered <- struct{}{}:
			default: // nobody asked
			}
		}
	}
}

// send presents connections and takes them off, a request at a time, until there has been none for a while.
func (w *watcher) send(ctx context.Context, stream watchStream, answered, move <-chan struct{}) {
	look := time.NewTicker(w.rest)
	defer look.Stop()
	empty := 0
	for {
		select {
		case <-move: // the connections count until the daemon sees it, which it says by the stream's end
			_ = stream.CloseSend()
			return
		default:
		}
		req, none := w.next()
		if req != nil {
			empty = 0
			if stream.Send(req) != nil {
				return // Recv says why
			}
			select {
			case <-answered:
				continue
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-w.wake:
			select {
			case <-time.After(watchGather):
			case <-move:
			case <-ctx.Done():
				return
			}
		case <-move:
		case <-look.C:
			if currentIdentity() != w.d.key.who {
				w.stop()
				return
			}
			if empty++; none && empty > 1 {
				_ = stream.CloseSend()
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// next returns the next request, nil if there is nothing to say, and whether there are no connections.
func (w *watcher) next() (req *altspb.WatchRequest, none bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	req = new(altspb.WatchRequest)
	n := min(len(w.gone), removeAtOnce)
	req.Remove, w.gone = w.gone[:n:n], w.gone[n:]
	size := 0
	for len(w.todo) > 0 && len(req.Add) < watchAtOnce && size < watchBatch {
		c := w.conns[w.todo[0]]
		w.todo = w.todo[1:]
		if c == nil {
			continue
		}
		c.watching.sent = true
		req.Add = append(req.Add, &altspb.Watched{Id: c.watching.id, Standing: c.watching.standing})
		size += len(c.watching.standing.GetRecord())
	}
	if len(w.todo) == 0 {
		w.todo = nil
	}
	if len(req.Add)+len(req.Remove) == 0 {
		return nil, len(w.conns) == 0
	}
	return req, false
}

// ended closes a connection that is refused now.
func (w *watcher) ended(e *altspb.Ended) {
	w.mu.Lock()
	c := w.conns[e.GetId()]
	delete(w.conns, e.GetId())
	w.mu.Unlock()
	if c != nil {
		// To close a connection may take a while.
		go c.endWith(&EndedError{Reason: reasonOf(e.GetReason()), Text: e.GetText(), HandshakeID: e.GetHandshakeId()})
	}
}

// endWith ends the connection, whose Read and Write return e from now on, unless the program has closed it.
func (c *Conn) endWith(e *EndedError) {
	c.mu.Lock()
	if !c.closed {
		c.ended.Store(e)
	}
	c.mu.Unlock()
	_ = c.raw.Close()
	c.rec.release()
}

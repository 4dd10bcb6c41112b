package altscreds

import (
	"net"
	"testing"
	"time"
)

// After a burst the connections that are not needed any more are closed, and a few are kept; those that are needed stay.
func TestHandoverConnsOfABurst(t *testing.T) {
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var d daemonConn
	var all []*handoverConn
	keep := func(n int) {
		for range n {
			c, err := net.Dial("unix", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			peer, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { peer.Close() })
			all = append(all, &handoverConn{UnixConn: c.(*net.UnixConn), born: time.Now()})
			d.keepHandoverConn(all[len(all)-1])
		}
	}
	take := func(n int) (taken []*handoverConn) {
		for range n {
			c, fresh, err := d.takeHandoverConn(t.Context())
			if err != nil || fresh {
				t.Fatalf("no connection is left: fresh %v, %v", fresh, err)
			}
			taken = append(taken, c)
		}
		return taken
	}
	open := func() (n int) {
		for _, c := range all {
			if c.SetDeadline(time.Time{}) == nil {
				n++
			}
		}
		return n
	}
	want := func(what string, idle, opened int, timed bool) {
		t.Helper()
		if got := open(); len(d.handoverConns) != idle || got != opened || (d.trim != nil) != timed {
			t.Errorf("%s: %d are idle and %d open, want %d and %d; timed %v", what, len(d.handoverConns), got, idle, opened,
				d.trim != nil)
		}
	}
	keep(handoverKept)
	want("a few", handoverKept, handoverKept, false)
	keep(handoverIdle)
	want("too many", handoverIdle, handoverIdle, true)
	d.trimHandoverConns() // only those that were there when the timer was set were idle all the time
	want("half a rest", handoverIdle-handoverKept-1, handoverIdle-handoverKept-1, true)
	d.trimHandoverConns()
	want("after a rest", handoverKept, handoverKept, false)

	keep(20)
	d.trimHandoverConns()
	busy := take(16)
	want("busy", 3, 19, true)
	for _, c := range busy {
		d.keepHandoverConn(c)
	}
	d.trimHandoverConns() // 3 were not needed
	want("16 were needed", 16, 16, true)
	d.closeHandoverConns()
	want("closed", 0, 0, false)
	d.trimHandoverConns() // as the timer may in that moment
	want("closed", 0, 0, false)
}

package daemon

import (
	"os"
	"testing"
	"time"
)

// TestRule56NeverAtRest: a directory of lists that changes all the time is read now and then, and not before its share of
// the time allows it.
func TestRule56NeverAtRest(t *testing.T) {
	l := newListed(t)
	if err := os.Mkdir(l.path("lists"), 0o755); err != nil {
		t.Fatal(err)
	}
	l.files.CRLs = []CRLFile{{File: l.path("lists"), Dir: true}}
	if err := l.start(); err != nil {
		t.Fatal(err)
	}
	l.reloader.beginLists("", nil)
	number := int64(5)
	changed := func() { number++; l.put("lists/a.crl", l.ca, number, -time.Minute) }
	lists := func() int { l.reloader.pollLists(); return len(l.machine.Trust().CRLs()) }
	for range 3 {
		changed()
		if lists() != 0 {
			t.Fatal("read before it was at rest")
		}
	}
	l.reloader.lists.last = time.Now().Add(-restless)
	l.reloader.lists.next = time.Now().Add(time.Hour)
	if changed(); lists() != 0 {
		t.Error("read beyond its share of the time")
	}
	l.reloader.lists.next = time.Time{}
	if changed(); lists() != 1 {
		t.Error("not read although it is never at rest")
	}
	was := l.machine.Trust()
	l.reloader.lists.next = time.Time{}
	if lists(); l.machine.Trust() != was {
		t.Error("read anew though nothing changed")
	}
}

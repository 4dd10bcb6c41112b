package testprog

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// Lines collects what a process says, line by line, for those who wait for a line.
type Lines struct {
	mu    sync.Mutex
	all   []string
	ended bool
	more  chan struct{} // closed and replaced at each line
}

func newLines() *Lines { return &Lines{more: make(chan struct{})} }

func (l *Lines) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	close(l.more)
	l.more = make(chan struct{})
}

func (l *Lines) add(line string) { l.change(func() { l.all = append(l.all, line) }) }

// end lets nobody wait for a line that will not come any more.
func (l *Lines) end() { l.change(func() { l.ended = true }) }

func (l *Lines) get() (all []string, ended bool, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all, l.ended, l.more
}

// All returns the lines so far.
func (l *Lines) All() []string {
	all, _, _ := l.get()
	return all
}

// Count returns how many lines there are so far, which is the number of the next one.
func (l *Lines) Count() int { return len(l.All()) }

func (l *Lines) String() string { return strings.Join(l.All(), "\n") }

// Wait waits for a line that matches, from line number first on, and returns the number after it.
func (l *Lines) Wait(first int, what string, match func(line string) bool) (next int, err error) {
	next = first
	for timeout := time.After(Patience); ; {
		all, ended, more := l.get()
		for ; next < len(all); next++ {
			if match(all[next]) {
				return next + 1, nil
			}
		}
		missing := func(why string) error {
			return fmt.Errorf("%s, and no line with %s after line %d in:\n%s", why, what, first, strings.Join(all, "\n"))
		}
		if ended {
			return 0, missing("the process has ended")
		}
		select {
		case <-more:
		case <-timeout:
			return 0, missing(fmt.Sprintf("%v have passed", Patience))
		}
	}
}

// WaitText is Wait for a line that holds the text.
func (l *Lines) WaitText(first int, text string) (next int, err error) {
	return l.Wait(first, fmt.Sprintf("%q", text), func(line string) bool { return strings.Contains(line, text) })
}

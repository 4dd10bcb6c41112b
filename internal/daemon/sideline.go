package daemon

// A sideline does one task beside the main loop, once at a time, however long it takes.
type sideline struct{ asked chan struct{} }

// newSideline does the task each time that it is asked for, until done is closed.
func newSideline(done <-chan struct{}, task func()) *sideline {
	s := &sideline{asked: make(chan struct{}, 1)}
	go func() {
		for {
			select {
			case <-done:
				return
			case <-s.asked:
				task()
			}
		}
	}()
	return s
}

// ask has the task done, once more if it is being done. It does not wait.
func (s *sideline) ask() {
	select {
	case s.asked <- struct{}{}:
	default: // one that has not begun serves both
	}
}

package testprog

import (
	"syscall"
	"testing"
	"time"
)

// Processor reports the processor time that each operation took.
func Processor(b *testing.B) (stop func()) {
	used := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	return func() {
		b.ReportMetric(float64((used()-before).Nanoseconds())/1e3/float64(b.N), "cpu-µs/op")
	}
}

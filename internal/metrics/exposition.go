package metrics

import (
	"bufio"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// ContentType is the media type of what WriteTo writes: Prometheus' text exposition format, version 0.0.4.
const ContentType = "text/plain; version=0.0.4; charset=utf-8"

// A label is one name and value of a sample.
type label struct{ name, value string }

// An exposition writes families of samples in Prometheus' text format. Errors of the writer are sticky and come out of
// Flush.
type exposition struct {
	*bufio.Writer
	common []label // of every sample
}

func newExposition(w io.Writer, common ...label) exposition {
	return exposition{bufio.NewWriter(w), common}
}

// family begins the samples of one name; kind is counter, gauge or histogram.
func (e exposition) family(name, kind, help string) {
	e.WriteString("# HELP " + name + " " + helpEscaper.Replace(help) + "\n")
	e.WriteString("# TYPE " + name + " " + kind + "\n")
}

func (e exposition) sample(name string, value float64, labels ...label) {
	e.WriteString(name + "{")
	for i, l := range append(slices.Clip(labels), e.common...) {
		if i > 0 {
			e.WriteByte(',')
		}
		e.WriteString(l.name + `="` + valueEscaper.Replace(strings.ToValidUTF8(l.value, "\uFFFD")) + `"`)
	}
	e.WriteString("} " + formatFloat(value) + "\n")
}

// single is a family of one sample without labels of its own.
func (e exposition) single(name, kind, help string, value float64) {
	e.family(name, kind, help)
	e.sample(name, value)
}

func (e exposition) histogram(name string, h *histogram, labels ...label) {
	sum := uint64(0)
	for i, bound := range durationBounds {
		sum += h.counts[i]
		e.sample(name+"_bucket", float64(sum), append(slices.Clip(labels), label{"le", formatFloat(bound)})...)
	}
	sum += h.counts[len(durationBounds)]
	e.sample(name+"_bucket", float64(sum), append(slices.Clip(labels), label{"le", "+Inf"})...)
	e.sample(name+"_sum", h.sum, labels...)
	e.sample(name+"_count", float64(sum), labels...)
}

var (
	helpEscaper  = strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	valueEscaper = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)
)

func formatFloat(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "+Inf"
	case v == math.Trunc(v) && math.Abs(v) < 1<<53:
		return strconv.FormatInt(int64(v), 10) // times in seconds stay readable
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// durationBounds are the upper bounds of the buckets of durations, seconds: a handshake takes a few milliseconds on one
// machine, a round trip or two of the network on two; what takes a second is slow.
var durationBounds = []float64{.005, .025, .1, 1}

// A histogram counts durations in seconds by bucket, each bucket apart; the exposition adds them up.
type histogram struct {
	counts []uint64 // one more than durationBounds: the last is beyond them all
	sum    float64
}

func newHistogram() histogram { return histogram{counts: make([]uint64, len(durationBounds)+1)} }

func (h *histogram) observe(seconds float64) {
	i, _ := slices.BinarySearch(durationBounds, seconds)
	h.counts[i]++
	h.sum += seconds
}

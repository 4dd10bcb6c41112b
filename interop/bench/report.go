package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// A report is what a run has found; its exported fields are the JSON.
type report struct {
	config
	Host    host
	Began   time.Time
	Each    string
	Rounds  int
	Samples []sample
	Memory  map[string]*memory // by variant
	Ratios  []ratio
}

// A ratio is that of a variant to its base, in each round: the quartiles.
type ratio struct {
	Row, Variant         string
	Lower, Median, Upper float64
	Base                 float64 // median of the base, in the row's unit
}

// A row of the table is a figure of a measure, in a unit.
type row struct {
	measure, title, unit string
	figure               func(sample) float64
}

func perOne(x sample) float64  { return x.Seconds / float64(x.N) * 1e6 }
func aSecond(x sample) float64 { return float64(x.N) / x.Seconds }
func processor(x sample) (us float64) {
	for _, s := range x.Processor {
		us += s
	}
	return us / float64(x.N) * 1e6
}

// rows are the table's. Of times, less is better; of what is done a second, more.
var rows = []row{
	{channelName, "new channel with its first call, time", "µs", perOne},
	{channelName, "new channel, processor time of all processes", "µs", processor},
	{channelName, "channels a second, 1 dialer", "/s", aSecond},
	{"8", "channels a second, 8 dialers", "/s", aSecond},
	{"64", "channels a second, 64 dialers", "/s", aSecond},
	{"256", "channels a second, 256 dialers", "/s", aSecond},
	{bulkName, "messages of 1 MiB", "MiB/s", aSecond},
	{firstName, "first channel of a fresh client, time", "µs", perOne},
	{firstName, "first channel, processor time of all processes", "µs", processor},
}

// figures returns those of a row for a variant, a round each.
func (r *report) figures(row row, variant string) (all []float64) {
	for _, x := range r.Samples {
		if x.Measure == row.measure && x.Variant == variant {
			all = append(all, row.figure(x))
		}
	}
	return all
}

// quantile returns the q-quantile, interpolated, of at least one value.
func quantile(of []float64, q float64) float64 {
	s := slices.Sorted(slices.Values(of))
	at := q * float64(len(s)-1)
	i := int(at)
	if i+1 == len(s) {
		return s[i]
	}
	return s[i] + (at-float64(i))*(s[i+1]-s[i])
}

func median(of []float64) float64 { return quantile(of, .5) }

// compare fills in the ratios.
func (r *report) compare() {
	r.Ratios = nil
	for _, row := range r.table.rows {
		for _, v := range r.variants {
			own, base := r.figures(row, v.Name), r.figures(row, v.base)
			if len(own) == 0 {
				continue
			}
			each := make([]float64, len(own))
			for i := range own {
				each[i] = own[i] / base[i]
			}
			r.Ratios = append(r.Ratios, ratio{row.title, v.Name, quantile(each, .25), median(each), quantile(each, .75), median(base)})
		}
	}
}

// print writes the tables as Markdown.
func (r *report) print(w io.Writer) {
	r.compare()
	fmt.Fprintf(w, "%s, %s.\n\n", r.Began.UTC().Format("2006-01-02 15:04 UTC"), r.Host)
	if len(r.Samples) > 0 {
		var seconds, others, stolen float64
		for _, x := range r.Samples {
			seconds, others, stolen = seconds+x.Seconds*float64(r.Host.CPUs), others+x.Others, stolen+x.Stolen
		}
		fmt.Fprintf(w, "%d rounds, %v each; something else had %.0f %% of the processors, the hypervisor %.0f %%. Ratios to %s "+
			"in the same round: median (quartiles).\n\n", r.Rounds, r.Each, 100*max(0, others)/seconds, 100*stolen/seconds,
			r.table.base)
	}
	for _, line := range r.Left {
		fmt.Fprintf(w, "%s.\n\n", line)
	}
	for _, base := range []string{tlsName, tlsRSA} {
		if slices.ContainsFunc(r.Ratios, func(x ratio) bool { return x.Variant == base }) {
			r.printRatios(w, base)
		}
	}
	r.printProcessors(w)
	if r.table == forwardsTable {
		r.printForwardMemory(w)
		return
	}
	r.printMemory(w)
}

func (r *report) printRatios(w io.Writer, base string) {
	var columns []*variant
	for _, v := range r.variants {
		if v.base == base && v.Name != base {
			columns = append(columns, v)
		}
	}
	head(w, "", find(r.variants, base).title, titles(columns)...)
	for _, row := range r.table.rows {
		line := fmt.Sprintf("| %s ", row.title)
		found := false
		for _, v := range append([]*variant{find(r.variants, base)}, columns...) {
			i := slices.IndexFunc(r.Ratios, func(x ratio) bool { return x.Row == row.title && x.Variant == v.Name })
			switch {
			case i < 0:
				line += "| "
			case v.Name == base:
				found = true
				line += fmt.Sprintf("| %.0f %s ", r.Ratios[i].Base, row.unit)
			default:
				x := r.Ratios[i]
				line += fmt.Sprintf("| %.2f (%.2f–%.2f) ", x.Median, x.Lower, x.Upper)
			}
		}
		if found {
			fmt.Fprintln(w, line+"|")
		}
	}
	fmt.Fprintln(w)
}

func titles(of []*variant) (all []string) {
	for _, v := range of {
		all = append(all, v.title)
	}
	return all
}

// head writes a table's first two lines.
func head(w io.Writer, first, second string, more ...string) {
	columns := append([]string{first, second}, more...)
	fmt.Fprintf(w, "| %s |\n|%s\n", strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
}

// printProcessors says which process a channel's processor time is spent in.
func (r *report) printProcessors(w io.Writer) {
	if find(r.measures, r.table.one) == nil {
		return
	}
	head(w, fmt.Sprintf("µs for a %s, medians", r.table.what), "time", append([]string{"processor"}, r.table.parts...)...)
	for _, v := range r.variants {
		fmt.Fprintf(w, "| %s | %.0f | %.0f ", v.title, median(r.figures(r.table.rows[0], v.Name)),
			median(r.figures(r.table.rows[1], v.Name)))
		for _, p := range r.table.parts {
			one := row{measure: r.table.one, figure: func(x sample) float64 { return x.Processor[p] / float64(x.N) * 1e6 }}
			if us := median(r.figures(one, v.Name)); us > 0 {
				fmt.Fprintf(w, "| %.0f ", us)
			} else {
				fmt.Fprint(w, "| ")
			}
		}
		fmt.Fprintln(w, "|")
	}
	fmt.Fprintln(w)
}

func (r *report) printMemory(w io.Writer) {
	head(w, "memory of a daemon, MiB, client's and server's", "idle", "its own of that", "after 64 dialers", "its own then", "most of all")
	for _, v := range r.variants {
		if !v.daemons() {
			continue
		}
		line := "| " + v.title + " "
		c, s := r.Memory[v.Name].ClientDaemon, r.Memory[v.Name].ServerDaemon
		for _, pair := range [][2]int{{c.Idle, s.Idle}, {c.OwnIdle, s.OwnIdle}, {c.Busy, s.Busy}, {c.OwnBusy, s.OwnBusy}, {c.Most, s.Most}} {
			if pair[0] == 0 { // not measured
				line += "| "
				continue
			}
			line += fmt.Sprintf("| %.1f, %.1f ", float64(pair[0])/1024, float64(pair[1])/1024)
		}
		fmt.Fprintln(w, line+"|")
	}
	if find(r.measures, idleName) == nil {
		return
	}
	fmt.Fprintln(w)
	head(w, "memory of an idle channel, KiB", "client", "server")
	for _, v := range r.variants {
		if m := r.Memory[v.Name]; v.key == testca.P256 {
			fmt.Fprintf(w, "| %s | %.1f | %.1f |\n", v.title, float64(m.Client)/1024, float64(m.Server)/1024)
		}
	}
}

func (r *report) writeJSON(file string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}

package main

import (
	"fmt"
	"slices"
	"strings"
)

// A table is a comparison: what is compared, by which measures, and how that is printed.
type table struct {
	Name     string
	variants []*variant
	measures []*measure
	rows     []row
	one      string   // the measure whose processor time is printed by process
	parts    []string // the processes, in the order of that
	what     string   // is one of them, in words
	base     string   // is what ratios are to, in words
	idle     int      // channels or connections are held for the memory of one
}

const clientDaemonName, serverDaemonName = "daemon of " + here, "daemon of " + there

var (
	channelsTable = &table{Name: "channels", variants: allVariants, measures: allMeasures, rows: rows, one: channelName,
		parts: []string{"client", "server", clientDaemonName, serverDaemonName}, what: "channel", base: "mutual TLS", idle: 1000}
	forwardsTable = &table{Name: "forwards", variants: forwardVariants, measures: forwardMeasures, rows: forwardRows,
		one: connectionName, parts: []string{"client", "server", clientForwarderName, serverForwarderName, clientDaemonName,
			serverDaemonName}, what: "connection", base: "crypto/tls", idle: 10000}
	allTables = []*table{channelsTable, forwardsTable}
)

func (t *table) name() string { return t.Name }

type named interface{ name() string }

func names[T named](all []T) string {
	var list []string
	for _, x := range all {
		list = append(list, x.name())
	}
	return strings.Join(list, ",")
}

func find[T named](all []T, name string) (found T) {
	if i := slices.IndexFunc(all, func(x T) bool { return x.name() == name }); i >= 0 {
		found = all[i]
	}
	return found
}

// chosen returns those of the list, in the order of all; of no list, all.
func chosen[T named](what string, all []T, list string) (some []T, err error) {
	if list == "" {
		return all, nil
	}
	want := strings.Split(list, ",")
	for _, x := range all {
		if slices.Contains(want, x.name()) {
			some = append(some, x)
		}
	}
	for _, w := range want {
		if !slices.ContainsFunc(all, func(x T) bool { return x.name() == w }) {
			return nil, fmt.Errorf("there is no %s %q: %s", what, w, names(all))
		}
	}
	return some, nil
}

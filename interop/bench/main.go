// Command bench measures shared-altsd as it is deployed: a client, a server and two daemons, each a process of its own,
// beside mutual TLS and no security at all in the same run; and forwards of plain connections, beside other forwarders. It
// prints the tables that docs/benchmarks.md quotes, as ratios to mutual TLS. It is for `make bench`, and no part of what is shipped.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// config is what the flags say.
type config struct {
	daemon   string
	table    *table
	rounds   int
	each     time.Duration
	variants []*variant
	measures []*measure
	idle     int // channels or connections held for the measure of memory
	json     string
	// unixTarget has the server of forwards at a UNIX socket, not at a TCP port.
	unixTarget bool
	soak       int      // handshakes, in the place of a table
	Left       []string // what is left out of what was asked for, in words
}

func parse(args []string) (c config, err error) {
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	f.StringVar(&c.daemon, "daemon", "bin/shared-altsd-static", "the daemons' `program`")
	f.IntVar(&c.rounds, "rounds", 9, "`rounds`, in each of which every variant is measured; their medians count")
	f.DurationVar(&c.each, "t", time.Second, "how `long` a variant is measured at a time")
	f.IntVar(&c.idle, "idle", 0, "`channels` or connections that are held for the memory of an idle one (default 1000 or 10000)")
	f.StringVar(&c.json, "json", "", "`file` for every sample and ratio")
	f.IntVar(&c.soak, "soak", 0, "make so many `handshakes` by stock grpc-go and by altscreds in turn, -t at a time, and see that the daemons hold no more for it")
	of := f.String("table", allTables[0].Name, "what the `table` is of: "+names(allTables))
	f.BoolVar(&c.unixTarget, "unix", false, "the server of forwards is at a UNIX socket, and not at a TCP port")
	variants := f.String("variants", "", "what to compare, of "+names(allVariants)+", or of forwards "+names(forwardVariants)+
		"; ratios need tls, and tls-rsa for RSA (default all)")
	measures := f.String("measures", "", "what to measure, of "+names(allMeasures)+", or of forwards "+names(forwardMeasures)+
		" (default all)")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 || c.rounds < 1 || c.each <= 0 || c.idle < 0 {
		return c, errors.New("no arguments, and positive numbers only: see -help")
	}
	if c.table = find(allTables, *of); c.table == nil {
		return c, fmt.Errorf("there is no table %q: %s", *of, names(allTables))
	}
	if c.unixTarget {
		c.Left = append(c.Left, "The server is at a UNIX socket")
	}
	if c.idle == 0 {
		c.idle = c.table.idle
	}
	if c.variants, err = chosen("variant", c.table.variants, *variants); err != nil {
		return c, err
	}
	for _, v := range c.variants {
		if find(c.variants, v.base) == nil {
			return c, fmt.Errorf("%s is measured by %s: name that in -variants too", v.name(), v.base)
		}
	}
	if c.measures, err = chosen("measure", c.table.measures, *measures); err != nil {
		return c, err
	}
	if c.soak > 0 {
		c.table, c.variants = allTables[0], []*variant{find(allVariants, stockName), find(allVariants, oursName)}
	}
	if c.table == forwardsTable {
		c.limitForwards()
	}
	if c.daemon, err = filepath.Abs(c.daemon); err != nil {
		return c, err
	}
	_, err = os.Stat(c.daemon)
	return c, err
}

func main() {
	if len(os.Args) == 3 {
		switch os.Args[1] {
		case appArgument:
			runEnd(new(app), os.Args[2])
			return
		case streamArgument:
			runEnd(new(stream), os.Args[2])
			return
		case forwarderArgument:
			fmt.Fprintln(os.Stderr, runForwarder(os.Args[2]))
			os.Exit(1)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	c, err := parse(args)
	if err != nil {
		return err
	}
	runtime.LockOSThread() // the children get their signal when the thread ends that started them
	r := &report{config: c, Host: thisHost(c.daemon), Began: time.Now(), Each: c.each.String(), Rounds: c.rounds}
	w, err := newWorld(ctx, c)
	if err == nil && c.soak > 0 {
		fmt.Printf("%v\n\n", r.Host)
		return errors.Join(w.soak(os.Stdout, c.soak, c.each), w.end())
	}
	if err == nil {
		err = r.measure(ctx, w)
	}
	if err := errors.Join(err, w.end()); err != nil {
		return err
	}
	r.print(os.Stdout)
	if c.json == "" {
		return nil
	}
	return r.writeJSON(c.json)
}

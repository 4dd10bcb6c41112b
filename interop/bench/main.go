// Command bench measures shared-altsd as it is deployed: a client, a server and two daemons, each a process of its own,
// beside mutual TLS and no security at all in the same run. It prints the tables that docs/benchmarks.md quotes, as
// ratios to mutual TLS. It is for `make bench`, and no part of what is shipped.
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
	rounds   int
	each     time.Duration
	variants []*variant
	measures []*measure
	idle     int // channels held for the measure of memory
	json     string
}

func parse(args []string) (c config, err error) {
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	f.StringVar(&c.daemon, "daemon", "bin/shared-altsd-static", "the daemons' `program`")
	f.IntVar(&c.rounds, "rounds", 9, "`rounds`, in each of which every variant is measured; their medians count")
	f.DurationVar(&c.each, "t", time.Second, "how `long` a variant is measured at a time")
	f.IntVar(&c.idle, "idle", 1000, "`channels` that are held for the memory of an idle one")
	f.StringVar(&c.json, "json", "", "`file` for every sample and ratio")
	variants := f.String("variants", names(allVariants), "what to compare; ratios need tls, and tls-rsa for RSA")
	measures := f.String("measures", names(allMeasures), "what to measure")
	if err := f.Parse(args); err != nil {
		return c, err
	}
	if f.NArg() > 0 || c.rounds < 1 || c.each <= 0 || c.idle < 1 {
		return c, errors.New("no arguments, and positive numbers only: see -help")
	}
	if c.variants, err = chosen("variant", allVariants, *variants); err != nil {
		return c, err
	}
	for _, v := range c.variants {
		if find(c.variants, v.base) == nil {
			return c, fmt.Errorf("%s is measured by %s: name that in -variants too", v.name(), v.base)
		}
	}
	if c.measures, err = chosen("measure", allMeasures, *measures); err != nil {
		return c, err
	}
	if c.daemon, err = filepath.Abs(c.daemon); err != nil {
		return c, err
	}
	_, err = os.Stat(c.daemon)
	return c, err
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == appArgument {
		runApp(os.Args[2])
		return
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

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/testprog"
)

// asProgram makes the test binary the program, which starts it again as client and as server.
const asProgram = "SHARED_ALTSD_BENCH"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
		return
	}
	os.Exit(testprog.Main(m))
}

// bench runs the program to its end.
func bench(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	daemon, err := testprog.Plain()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", append([]string{"-daemon", daemon}, args...)...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	return out.String(), errs.String(), err
}

// oneRound runs one round, as short as can be, and returns what it measured and its table.
func oneRound(t *testing.T, args ...string) (r report, out string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "json")
	out, errs, err := bench(t, append(args, "-rounds", "1", "-t", "10ms", "-idle", "20", "-json", file)...)
	if err != nil {
		t.Fatalf("%v\n%s", err, errs)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatal(err)
	}
	return r, out
}

// A round of everything, as short as can be, with real processes: each measure has a sample of each variant and each
// process its part in it, and the table a line for each.
func TestOneRound(t *testing.T) {
	r, out := oneRound(t)
	for _, m := range allMeasures {
		for _, v := range allVariants {
			if m.Name == idleName || v.base == tlsRSA && !m.rsa {
				continue
			}
			i := slices.IndexFunc(r.Samples, func(x sample) bool { return x.Measure == m.Name && x.Variant == v.Name })
			if i < 0 {
				t.Errorf("measure %s has no sample of %s", m.Name, v.Name)
				continue
			}
			x := r.Samples[i]
			if x.N < max(1, m.dialers) || x.Seconds <= 0 {
				t.Errorf("measure %s of %s: %d in %v s", m.Name, v.Name, x.N, x.Seconds)
			}
			processes := []string{"client", "server"}
			if v.daemons() && m.Name != bulkName {
				processes = append(processes, "daemon of "+here, "daemon of "+there)
			}
			for _, p := range processes {
				if x.Processor[p] <= 0 {
					t.Errorf("measure %s of %s: no processor time of %s: %v", m.Name, v.Name, p, x.Processor)
				}
			}
		}
	}
	for _, v := range allVariants {
		m := r.Memory[v.Name]
		if v.base == tlsName && (m.Client <= 0 || m.Server <= 0) {
			t.Errorf("no memory of an idle channel of %s: %+v", v.Name, m)
		}
		for _, d := range []daemonMemory{m.ClientDaemon, m.ServerDaemon} {
			if v.daemons() != (d.OwnIdle > 0 && d.Idle > d.OwnIdle && d.OwnBusy > 0 && d.Most >= d.Busy) {
				t.Errorf("memory of a daemon of %s: %+v", v.Name, d)
			}
		}
		if !strings.Contains(out, v.title) {
			t.Errorf("no table has %s:\n%s", v.title, out)
		}
	}
	for _, row := range rows {
		if !strings.Contains(out, "| "+row.title+" |") {
			t.Errorf("no table has %q:\n%s", row.title, out)
		}
	}
	if strings.Contains(out, "NaN") || strings.Contains(out, "Inf") {
		t.Errorf("not a number:\n%s", out)
	}
	if t.Failed() {
		t.Log(out)
	}
}

// The same of forwards: each takes connections, carries them and their ends, and has its part in the processor time.
func TestOneRoundOfForwards(t *testing.T) {
	r, out := oneRound(t, "-table", "forwards")
	if _, err := haproxy(); (err != nil) != strings.Contains(out, "haproxy is not installed") {
		t.Errorf("haproxy: %v, and the table says:\n%s", err, out)
	}
	for _, v := range forwardVariants {
		if _, err := haproxy(); v.Name == haproxyName && err != nil {
			continue
		}
		for _, m := range forwardMeasures {
			i := slices.IndexFunc(r.Samples, func(x sample) bool { return x.Measure == m.Name && x.Variant == v.Name })
			if m.Name == idleName {
				continue
			} else if i < 0 {
				t.Errorf("measure %s has no sample of %s", m.Name, v.Name)
				continue
			}
			x := r.Samples[i]
			if x.N < max(1, m.dialers) || x.Seconds <= 0 {
				t.Errorf("measure %s of %s: %d in %v s", m.Name, v.Name, x.N, x.Seconds)
			}
			for _, p := range forwardsTable.parts {
				if daemon := strings.HasPrefix(p, "daemon"); x.Processor[p] <= 0 && (!daemon || v.daemons()) {
					t.Errorf("measure %s of %s: no processor time of %s: %v", m.Name, v.Name, p, x.Processor)
				}
			}
		}
		if m := r.Memory[v.Name]; m.Client <= 0 || m.Server <= 0 {
			t.Errorf("no memory of an idle connection of %s: %+v", v.Name, m)
		}
		if !strings.Contains(out, "| "+v.title+" |") {
			t.Errorf("no table has %s:\n%s", v.title, out)
		}
	}
	for _, row := range forwardRows {
		if !strings.Contains(out, "| "+row.title+" |") {
			t.Errorf("no table has %q:\n%s", row.title, out)
		}
	}
	if strings.Contains(out, "NaN") || strings.Contains(out, "Inf") {
		t.Errorf("not a number:\n%s", out)
	}
}

// A flag that cannot be is refused before anything is started.
func TestFlags(t *testing.T) {
	for _, args := range [][]string{
		{"-variants", "tls,tsl"},
		{"-table", "chairs"},
		{"-table", "forwards", "-variants", "altscreds"},
		{"-table", "forwards", "-variants", "haproxy"},
		{"-table", "forwards", "-measures", "channel"},
		{"-variants", "altscreds"},
		{"-variants", "tls,stock-rsa"},
		{"-measures", "bulk,9"},
		{"-rounds", "0"},
		{"-t", "0s"},
		{"-daemon", "/nowhere"},
		{"more"},
	} {
		if out, errs, err := bench(t, args...); err == nil || out != "" || !strings.HasPrefix(errs, "bench: ") {
			t.Errorf("%q: %v, %q, %q", args, err, out, errs)
		}
	}
}

// What fails is named, with the log of who knows more: here a daemon that is none.
func TestFailureIsNamed(t *testing.T) {
	_, errs, err := bench(t, "-daemon", "/bin/false", "-variants", "tls,stock")
	if err == nil || !strings.Contains(errs, "stock: daemon of "+here+": it ended") {
		t.Errorf("%v, %q", err, errs)
	}
}

// Who ends it early leaves neither processes nor files behind.
func TestInterrupted(t *testing.T) {
	cmd := exec.Command("/proc/self/exe", "-daemon", must(t)(testprog.Plain()), "-variants", "tls,stock", "-measures", "channel",
		"-t", "10ms", "-rounds", "1000000")
	cmd.Env = append(os.Environ(), asProgram+"=1")
	errs, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(errs)
	if !lines.Scan() || !strings.HasPrefix(lines.Text(), "round 1 ") {
		t.Fatalf("it begins with %q", lines.Text())
	}
	// Each child's program is in the directory that is to go.
	var left []string
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		for child := range strings.FieldsSeq(must(t)(read(list))) {
			exe := must(t)(os.Readlink("/proc/" + child + "/exe"))
			left = append(left, "/proc/"+child, filepath.Dir(exe))
		}
	}
	if len(left) < 2*6 {
		t.Fatalf("two variants have too few children: %q", left)
	}
	cmd.Process.Signal(syscall.SIGTERM)
	for lines.Scan() {
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it ended as if it were done")
	}
	for _, path := range left {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

func read(path string) (string, error) {
	b, err := os.ReadFile(path)
	return string(b), err
}

// must returns what ends the test if there is an error.
func must(t *testing.T) func(string, error) string {
	return func(s string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		of      []float64
		q, want float64
	}{
		{[]float64{3}, .25, 3},
		{[]float64{3, 1}, .5, 2},
		{[]float64{5, 1, 3}, .5, 3},
		{[]float64{5, 1, 3}, .25, 2},
		{[]float64{5, 1, 3}, .75, 4},
		{[]float64{1, 2}, 1, 2},
	} {
		if got := quantile(c.of, c.q); got != c.want {
			t.Errorf("quantile(%v, %v) = %v, want %v", c.of, c.q, got, c.want)
		}
	}
}

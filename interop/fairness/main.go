// Command fairness measures, as root, what one account can do to the handshakes of another: a real daemon, a victim that
// does 20 handshakes a second, an attacker beside it, each as an account of its own in a mount namespace with a passwd of
// theirs. It prints the table of docs/threat-model.md. It is for `make bench-fairness`, and no part of what is shipped.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	alice, bob, daemonUID = 61001, 61002, 61500
	nameless              = 200_000 // and the 65535 uids behind it, subordinate to bob
)

// protocols is what the connections speak.
var protocols = []string{"grpc"}

var (
	daemon  = flag.String("daemon", "", "the static program")
	part    = flag.String("part", "", "(internal) victim or attack")
	dir     = flag.String("dir", "", "(internal) the world")
	mode    = flag.String("mode", "", "(internal) what the attacker does")
	modes   = flag.String("modes", strings.Join(allModes, ","), "what to measure")
	each    = flag.Duration("t", 10*time.Second, "how long each is measured")
	rounds  = flag.Int("rounds", 3, "runs, of which the median counts")
	threads = flag.Int("conns", 8, "the attacker's connections")
)

func main() {
	flag.Parse()
	var err error
	switch *part {
	case "victim":
		err = victim(filepath.Join(*dir, "run", "socket"), *each)
	case "attack":
		err = attack(*mode, *dir, *each)
	case "world":
		err = world()
	default:
		err = inNamespace()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fairness:", err)
		os.Exit(1)
	}
}

// inNamespace runs this program again where it may change /etc.
func inNamespace() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root, for accounts of its own: run it with sudo")
	}
	temp, err := os.MkdirTemp("/tmp", "altsd-fair-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	self, err := os.ReadFile("/proc/self/exe") // the folder of go run is closed to other accounts
	if err != nil {
		return err
	}
	program, err := os.ReadFile(*daemon)
	if err != nil {
		return fmt.Errorf("-daemon: %w", err)
	}
	if err := errors.Join(os.Chmod(temp, 0o755), os.WriteFile(filepath.Join(temp, "fairness"), self, 0o755),
		os.WriteFile(filepath.Join(temp, "shared-altsd"), program, 0o755)); err != nil {
		return err
	}
	cmd := exec.Command(filepath.Join(temp, "fairness"), append([]string{"-part", "world", "-dir", temp}, os.Args[1:]...)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	return cmd.Run()
}

// world makes the accounts, the certificates and the daemon, and measures.
func world() error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	for file, text := range map[string]string{
		"passwd": fmt.Sprintf("root:x:0:0::/root:/bin/sh\nalice:x:%d:%[1]d::/:/bin/sh\nbob:x:%d:%[2]d::/:/bin/sh\n"+
			"altsd:x:%d:%[3]d::/:/bin/false\n", alice, bob, daemonUID),
		"subuid":        fmt.Sprintf("bob:%d:65536\n", nameless),
		"nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
	} {
		own := filepath.Join(*dir, file)
		if err := os.WriteFile(own, []byte(text), 0o644); err != nil {
			return err
		}
		if _, err := os.Stat("/etc/" + file); err != nil {
			continue
		}
		if err := syscall.Mount(own, "/etc/"+file, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("/etc/%s: %w", file, err)
		}
	}
	program, ca, run := filepath.Join(*dir, "shared-altsd"), filepath.Join(*dir, "ca"), filepath.Join(*dir, "run")
	if out, err := exec.Command(program, "dev-ca", ca, "alpha.test").CombinedOutput(); err != nil {
		return fmt.Errorf("dev-ca: %w: %s", err, out)
	}
	key := filepath.Join(ca, "alpha.test.pem")
	if err := errors.Join(os.Chmod(ca, 0o755), os.Chmod(filepath.Join(ca, "ca.pem"), 0o644), os.Chown(key, daemonUID, daemonUID),
		os.Mkdir(run, 0o755), os.Chown(run, daemonUID, daemonUID)); err != nil {
		return err
	}
	serve := as(daemonUID, program, "serve", "--credentials", key, "--ca", filepath.Join(ca, "ca.pem"),
		"--socket", filepath.Join(run, "socket"), "--socket", fmt.Sprintf("%s/limited,uids=%d-%d", run, nameless, nameless+65535))
	serve.Env = append(os.Environ(), "SHARED_ALTSD_CONFIG=")
	var log bytes.Buffer
	serve.Stderr = &log
	if err := serve.Start(); err != nil {
		return err
	}
	defer func() {
		serve.Process.Kill()
		serve.Wait()
	}()
	for range 100 {
		if _, err := os.Stat(filepath.Join(run, "limited")); err == nil {
			return table()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("the daemon did not come up: %s", log.String())
}

func as(uid int, program string, args ...string) *exec.Cmd {
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)},
		Pdeathsig: syscall.SIGKILL}
	return cmd
}

// An outcome is what the victim saw in one run.
type outcome struct {
	N, Failed int
	P50, P99  float64 // ms
}

// table measures each mode between two controls, and prints the medians.
func table() error {
	all := map[string][]outcome{}
	list := strings.Split(*modes, ",")
	for range *rounds {
		for _, m := range append([]string{"quiet", "spin"}, append(list, "spin")...) {
			o, err := measure(m)
			if err != nil {
				return fmt.Errorf("%s: %w", m, err)
			}
			fmt.Fprintf(os.Stderr, "%-12s %+v\n", m, o)
			all[m] = append(all[m], o)
		}
	}
	spin := median(all["spin"])
	fmt.Println("| the attacker | p50, ms | p99, ms | of the control's | failed |\n|---|---|---|---|---|")
	for _, m := range append([]string{"quiet", "spin"}, list...) {
		o := median(all[m])
		fmt.Printf("| %s | %.1f | %.1f | %.2f, %.2f | %d of %d |\n", describe[m], o.P50, o.P99, o.P50/spin.P50, o.P99/spin.P99,
			o.Failed, o.N)
	}
	return nil
}

func median(of []outcome) (o outcome) {
	var p50, p99 []float64
	for _, x := range of {
		p50, p99 = append(p50, x.P50), append(p99, x.P99)
		o.N += x.N
		o.Failed += x.Failed
	}
	slices.Sort(p50)
	slices.Sort(p99)
	middle := func(x []float64) float64 { return (x[(len(x)-1)/2] + x[len(x)/2]) / 2 }
	o.P50, o.P99 = middle(p50), middle(p99)
	return o
}

// measure has the attacker at work for as long as the victim is.
func measure(m string) (o outcome, err error) {
	self := filepath.Join(*dir, "fairness")
	if m != "quiet" {
		uid := bob
		if m == "limited" {
			uid = nameless
		}
		if m == "uids" {
			uid = 0 // it changes its uid, as newuidmap lets bob
		}
		args := []string{"-part", "attack", "-dir", *dir, "-mode", m, "-t", (*each + 2*time.Second).String(), "-conns",
			fmt.Sprint(*threads)}
		a := as(uid, self, args...)
		a.Stderr = os.Stderr
		if err := a.Start(); err != nil {
			return o, err
		}
		defer func() {
			a.Process.Kill()
			a.Wait()
			time.Sleep(500 * time.Millisecond)
		}()
		time.Sleep(time.Second)
	}
	v := as(alice, self, "-part", "victim", "-dir", *dir, "-t", each.String())
	v.Stderr = os.Stderr
	out, err := v.Output()
	if err != nil {
		return o, fmt.Errorf("the victim: %w", err)
	}
	return o, json.Unmarshal(out, &o)
}

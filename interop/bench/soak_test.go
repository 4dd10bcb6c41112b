package main

import (
	"regexp"
	"strings"
	"testing"
)

// The command itself, as short as can be: it makes as many as it was asked for, and looks at all eight processes on the way. How much a
// daemon holds that has done so few says nothing yet.
func TestSoak(t *testing.T) {
	out, errs, err := bench(t, "-soak", "300", "-t", "1ns") // one channel of each dialer, and a look
	if err != nil && !strings.Contains(errs, " went from ") {
		t.Fatalf("%v\n%s", err, errs)
	}
	if !strings.Contains(out, "\nNone failed, in ") {
		t.Errorf("it does not say that none failed:\n%s", out)
	}
	for _, v := range []string{stockName, oursName} {
		for _, p := range []string{"client", "server", "daemon of alpha", "daemon of beta"} {
			row := regexp.MustCompile(`(?m)^\| [1-9][0-9]* \| ` + v + ": " + p + ` \| [1-9][0-9]*\.[0-9] \| [1-9][0-9]* \| [1-9][0-9]* \|$`)
			if len(row.FindAllString(out, -1)) < 2 {
				t.Errorf("it has not looked at %s: %s twice:\n%s", v, p, out)
			}
		}
	}
}

// What grows with handshakes is found, what varies is not taken for it.
func TestFlat(t *testing.T) {
	var steady, memory, threads, descriptors []look
	for i := range 40 {
		steady = append(steady, look{30000 + 9000*(i%3), 12 + i%2, 20 + 16*(i%4)})
		memory = append(memory, look{30000 + 400*i + 9000*(i%3), 12, 20})
		threads = append(threads, look{30000, 12 + i, 20})
		descriptors = append(descriptors, look{30000, 12, 20 + i + 16*(i%4)})
	}
	if err := flat(steady); err != nil {
		t.Error(err)
	}
	for name, looks := range map[string][]look{"memory": memory, "threads": threads, "descriptors": descriptors, "few": steady[:7]} {
		if flat(looks) == nil {
			t.Errorf("%s: nothing is said", name)
		}
	}
}

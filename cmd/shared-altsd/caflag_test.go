package main

import (
	"reflect"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/certbind"
)

func TestRule13ParseCAFlag(t *testing.T) {
	for _, tc := range []struct{ in, names, file string }{
		{"ca.pem", "", "ca.pem"},
		{"/etc/ca.pem", "", "/etc/ca.pem"},
		{"/etc/a=b/ca.pem", "", "/etc/a=b/ca.pem"},
		{"./a=b.pem", "", "./a=b.pem"},
		{"example.com=ca.pem", "example.com", "ca.pem"},
		{"Example.com,hpc.example.org=/etc/a=b.pem", "example.com,hpc.example.org", "/etc/a=b.pem"},
		{"example.com=system", "example.com", "system"},
	} {
		names, file, err := parseCAFlag(tc.in)
		if err != nil || strings.Join(names, ",") != tc.names || file != tc.file {
			t.Errorf("%q: got %v, %q, %v", tc.in, names, file, err)
		}
	}
	for _, bad := range []string{"", "system", "=ca.pem", "example.com=", ",=f", "a,=f", "*.example.com=f",
		".example.com=f", "10.0.0.1=f", "localhost=f"} {
		if names, file, err := parseCAFlag(bad); err == nil || !strings.Contains(err.Error(), "--ca") {
			t.Errorf("%q: got %v, %q, %v", bad, names, file, err)
		}
	}
}

func FuzzCAFlag(f *testing.F) {
	for _, s := range []string{"ca.pem", "example.com=ca.pem", "A.b,c.d=/x=y", "system", "a=system", "/a=b", "=",
		",=", "*.a=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		names, file, err := parseCAFlag(v)
		if err != nil {
			if names != nil || file != "" {
				t.Fatalf("%q: results %v, %q beside %v", v, names, file, err)
			}
			return
		}
		if file == "" || file == "system" && len(names) == 0 || len(file) > len(v) {
			t.Fatalf("%q gave the file %q", v, file)
		}
		for _, n := range names {
			if err := certbind.ValidMachineName(n); err != nil {
				t.Fatalf("%q gave the name %q: %v", v, n, err)
			}
		}
		// What was parsed, written out, is parsed to the same.
		if len(names) > 0 {
			again, file2, err := parseCAFlag(strings.Join(names, ",") + "=" + file)
			if err != nil || file2 != file || !reflect.DeepEqual(again, names) {
				t.Fatalf("%q: %v, %q, %v", v, again, file2, err)
			}
		}
	})
}

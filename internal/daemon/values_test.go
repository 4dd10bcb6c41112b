package daemon

import (
	"reflect"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/certbind"
)

func TestRule13ParseCAFile(t *testing.T) {
	for _, tc := range []struct{ in, names, file string }{
		{"ca.pem", "", "ca.pem"},
		{"/etc/ca.pem", "", "/etc/ca.pem"},
		{"/etc/a=b/ca.pem", "", "/etc/a=b/ca.pem"},
		{"./a=b.pem", "", "./a=b.pem"},
		{"example.com=ca.pem", "example.com", "ca.pem"},
		{"Example.com,hpc.example.org=/etc/a=b.pem", "example.com,hpc.example.org", "/etc/a=b.pem"},
		{"example.com=system", "example.com", "system"},
		{"Example.com,example.org=dane", "example.com,example.org", "dane"},
		{"./dane", "", "./dane"},
	} {
		ca, err := ParseCAFile(tc.in)
		if err != nil || strings.Join(ca.Names, ",") != tc.names || ca.File != tc.file {
			t.Errorf("%q: got %v, %v", tc.in, ca, err)
		}
	}
	for _, bad := range []string{"", "system", "dane", "=dane", "=ca.pem", "example.com=", ",=f", "a,=f", "*.example.com=f",
		".example.com=f", "10.0.0.1=f", "localhost=f"} {
		if ca, err := ParseCAFile(bad); err == nil || !strings.Contains(err.Error(), "--ca") {
			t.Errorf("%q: got %v, %v", bad, ca, err)
		}
	}
}

func FuzzCAFile(f *testing.F) {
	for _, s := range []string{"ca.pem", "example.com=ca.pem", "A.b,c.d=/x=y", "system", "a=system", "dane", "a=dane", "/a=b", "=",
		",=", "*.a=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		ca, err := ParseCAFile(v)
		if err != nil {
			if ca.Names != nil || ca.File != "" {
				t.Fatalf("%q: result %v beside %v", v, ca, err)
			}
			return
		}
		names, file := ca.Names, ca.File
		if file == "" || (file == "system" || file == "dane") && len(names) == 0 || len(file) > len(v) {
			t.Fatalf("%q gave the file %q", v, file)
		}
		for _, n := range names {
			if err := certbind.ValidMachineName(n); err != nil {
				t.Fatalf("%q gave the name %q: %v", v, n, err)
			}
		}
		// What was parsed, written out, is parsed to the same.
		if len(names) > 0 {
			again, err := ParseCAFile(strings.Join(names, ",") + "=" + file)
			if err != nil || !reflect.DeepEqual(again, ca) {
				t.Fatalf("%q: %v, %v", v, again, err)
			}
		}
	})
}

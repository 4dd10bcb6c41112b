package pkcs11

import (
	"reflect"
	"strings"
	"testing"
)

func TestURIs(t *testing.T) {
	const m = "?module-path=/usr/lib/m.so"
	slot := uint(7)
	for _, test := range []struct {
		uri  string
		want *URI
		err  string
	}{
		{uri: "pkcs11:token=machine;object=key" + m, want: &URI{Token: "machine", Object: "key", Module: "/usr/lib/m.so"}},
		{uri: "PKCS11:object=a%20b;id=%01%ff;type=private" + m, want: &URI{Object: "a b", ID: []byte{1, 0xff}, Module: "/usr/lib/m.so"}},
		{uri: "pkcs11:manufacturer=x;model=y;serial=z;slot-id=7;id=a" + m, want: &URI{Manufacturer: "x", Model: "y", Serial: "z", Slot: &slot, ID: []byte("a"), Module: "/usr/lib/m.so"}},
		{uri: "pkcs11:id=a" + m + "&pin-source=file:/etc/pin", want: &URI{ID: []byte("a"), Module: "/usr/lib/m.so", PINSource: "/etc/pin"}},
		{uri: "pkcs11:id=a" + m + "&pin-source=file:///etc/pin", want: &URI{ID: []byte("a"), Module: "/usr/lib/m.so", PINSource: "/etc/pin"}},
		{uri: "pkcs11:id=a" + m + "&pin-source=/etc/pin", want: &URI{ID: []byte("a"), Module: "/usr/lib/m.so", PINSource: "/etc/pin"}},
		{uri: "pkcs11:id=a", err: "add ?module-path="},
		{uri: "pkcs11:token=x" + m, err: "add object=LABEL or id=%XX"},
		{uri: "pkcs11:" + m, err: "add object=LABEL"},
		{uri: "pkcs12:id=a" + m, err: "none that begins with pkcs11:"},
		{uri: "pkcs11:id=a" + m + "&pin-value=1234", err: "pin-source=file:/PATH or --pin-file"},
		{uri: "pkcs11:pin-value=1234;id=a" + m, err: "pin-source=file:/PATH or --pin-file"},
		{uri: "pkcs11:id=a" + m + "&pin-source=%7ccat", err: "a command is not run"},
		{uri: "pkcs11:id=a" + m + "&pin-source=|cat", err: "a command is not run"},
		{uri: "pkcs11:id=a" + m + "&pin-source=pin", err: "not the absolute path of a file"},
		{uri: "pkcs11:id=a?module-path=m.so", err: "not an absolute path"},
		{uri: "pkcs11:id=a?module-name=softhsm2", err: "not searched for"},
		{uri: "pkcs11:id=a;type=public" + m, err: "type: it is not private"},
		{uri: "pkcs11:id=a;id=b" + m, err: "has id twice"},
		{uri: "pkcs11:id=a;x-other=b" + m, err: "x-other: it is not understood"},
		{uri: "pkcs11:id=a;library-version=2" + m, err: "library-version: it is not understood"},
		{uri: "pkcs11:id=a" + m + "&x-other=b", err: "x-other: it is not understood"},
		{uri: "pkcs11:object=a b" + m, err: "has to be written as %20"},
		{uri: "pkcs11:object=a%2" + m[:0], err: "no two digits"},
		{uri: "pkcs11:object=a%zz" + m, err: "no two digits"},
		{uri: "pkcs11:object=%ff" + m, err: "not text in UTF-8"},
		{uri: "pkcs11:object=" + m, err: "it is empty"},
		{uri: "pkcs11:;object=a" + m, err: "not NAME=VALUE"},
		{uri: "pkcs11:1234%20=a" + m, err: "part 1 of it is not NAME=VALUE"},
		{uri: "pkcs11:slot-id=-1;id=a" + m, err: "not a number"},
		{uri: "pkcs11:object=" + strings.Repeat("a", maxURI) + m, err: "more than 4096 bytes"},
	} {
		got, err := ParseURI(test.uri)
		switch {
		case test.err == "" && (err != nil || !reflect.DeepEqual(got, test.want)):
			t.Errorf("%s: %+v, %v", test.uri, got, err)
		case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
			t.Errorf("%.80s: %v, want %q", test.uri, err, test.err)
		case err != nil && strings.Contains(err.Error(), "1234"):
			t.Errorf("%s: the error shows the PIN: %v", test.uri, err)
		}
	}
}

func FuzzURI(f *testing.F) {
	f.Add("pkcs11:token=machine;manufacturer=x;model=y;serial=z;slot-id=7;object=a%20b;id=%01;type=private?module-path=/m.so&pin-source=file:/pin")
	f.Add("pkcs11:id=a?pin-value=1234&module-name=x")
	f.Fuzz(func(t *testing.T, s string) {
		u, err := ParseURI(s)
		if err != nil {
			if u != nil || len(err.Error()) > 400 {
				t.Errorf("an error of %d bytes: %v", len(err.Error()), err)
			}
			return
		}
		if u.Module == "" || u.Object == "" && len(u.ID) == 0 || strings.ContainsRune(u.Token+u.Object+u.Module+u.PINSource, 0) {
			t.Errorf("%q is taken: %+v", s, u)
		}
	})
}

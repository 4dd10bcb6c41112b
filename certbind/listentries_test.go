package certbind

import (
	"encoding/hex"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/testca"
)

func TestEntries(t *testing.T) {
	const at = "170d3236303530343132303030305a" // a UTCTime
	entry := func(number, rest string) string {
		content := number + at + rest
		return "30" + hex.EncodeToString([]byte{byte(len(content) / 2)}) + content
	}
	reason := "300c" + "300a0603551d1504030a0101"
	critical := "300f" + "300d0603551d1d0101ff04030a0101"
	for _, tc := range []struct {
		name, hex, want string // want is part of an error
		has, hasNot     string // numbers
	}{
		{"none", "", "", "", " 01"},
		{"several, unordered, one twice", entry("020105", "") + entry("02020080", "") + entry("020101", "") + entry("020105", ""), "", "01 05 80", " 02 0080 0005"},
		{"zero", entry("020100", ""), "", " ", "00 01"},
		{"negative", entry("0201fb", "") + entry("020107", ""), "", "07", "05 fb"},
		{"a reason", entry("020105", reason), "", "05", ""},
		{"a generalized time", "3014" + "020105" + "180f32303236303530343132303030305a", "", "05", ""},
		{"critical", entry("020105", critical), "critical extension 2.5.29.29", "", ""},
		{"not minimal", entry("02020005", ""), "do not parse", "", ""},
		{"an empty number", entry("0200", ""), "do not parse", "", ""},
		{"no number", entry("040105", ""), "do not parse", "", ""},
		{"no time", "3003020105", "do not parse", "", ""},
		{"something behind", entry("020105", reason+"0500"), "do not parse", "", ""},
		{"an extension without a value", entry("020105", "3007"+"30050603551d15"), "do not parse", "", ""},
		{"no entry", "020105", "do not parse", "", ""},
		{"cut", entry("020105", "")[:20], "do not parse", "", ""},
		{"of no definite length", "3080" + "020105" + at + "0000", "do not parse", "", ""},
		{"a length with a leading zero", "308200" + "12" + "020105" + at, "do not parse", "", ""},
	} {
		der, err := hex.DecodeString(tc.hex)
		if err != nil {
			t.Fatal(tc.name, err)
		}
		s, err := parseEntries(der)
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
			continue
		}
		for list, want := range map[string]bool{tc.has: true, tc.hasNot: false} {
			if list == "" {
				continue
			}
			for _, number := range strings.Split(strings.TrimPrefix(list, " "), " ") {
				if b, _ := hex.DecodeString(number); s.has(b) != want {
					t.Errorf("%s: has %q is %v", tc.name, number, !want)
				}
			}
		}
	}
}

// TestListOfMany: of a list of ten thousand entries each is found, and no other; they make little memory.
func TestListOfMany(t *testing.T) {
	ca := newCA(t, testca.Options{})
	var numbers []*big.Int
	for i := range 10_000 {
		numbers = append(numbers, new(big.Int).SetUint64(uint64(i)*uint64(0x9e3779b97f4a7c15)>>uint(i%40)|1))
	}
	der := testca.MustCRL(t, ca, numbers, testca.CRLOptions{ThisUpdate: time.Now()})
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l, err := parseCRL(der)
	runtime.ReadMemStats(&after)
	if err != nil {
		t.Fatal(err)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > uint64(len(der)) {
		t.Errorf("%d bytes made of %d", used, len(der))
	}
	revoked := make(map[string]bool)
	for _, n := range numbers {
		revoked[string(n.Bytes())] = true
	}
	for _, n := range numbers {
		for d := range int64(3) {
			if near := new(big.Int).Add(n, big.NewInt(d)).Bytes(); l.revokesSerial(near) != revoked[string(near)] {
				t.Fatalf("%x is found: %v", near, !revoked[string(near)])
			}
		}
	}
}

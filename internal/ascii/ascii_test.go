package ascii

import "testing"

func TestLower(t *testing.T) {
	for in, want := range map[string]string{"": "", "Bob@ALPHA.example": "bob@alpha.example", "\u212Aelvin": "\u212Aelvin",
		"\u0130": "\u0130", "a\xffB": "a\uFFFDb"} {
		if got := Lower(in); got != want {
			t.Errorf("Lower(%q) = %q, want %q", in, got, want)
		}
	}
}

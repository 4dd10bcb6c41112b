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

func TestVisible(t *testing.T) {
	for in, want := range map[string]bool{"": true, "alice@alpha.example.com!~": true, "a b": false, "a\n": false, "a\x7f": false, "\u00e9": false,
		"\xff": false, "a\x00": false} {
		if got := Visible(in); got != want {
			t.Errorf("Visible(%q) = %v", in, got)
		}
	}
}

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{"": "", "a b~!": "a b~!", "a\nb": "a?b", "\x1b[31m": "?[31m", "\u00e9": "??", "\xff\x7f\x00": "???"} {
		if got := Plain(in); got != want {
			t.Errorf("Plain(%q) = %q, want %q", in, got, want)
		}
	}
}

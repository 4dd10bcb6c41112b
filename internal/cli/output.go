package cli

import (
	"encoding/json"
	"io"
	"strings"
)

// helpWidth is how wide help text is, columns.
const helpWidth = 108

// OneLine keeps an error on one line, whatever text of the system or of a library is in it.
func OneLine(s string) string {
	s = strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// Wrap breaks text into lines of at most width bytes, at spaces.
func Wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// WriteJSON writes v as JSON that people can read as well.
func WriteJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// reflow wraps paragraphs; lines that begin with white space stay as they are.
func reflow(text string) string {
	var out []string
	var paragraph string
	flush := func() {
		if paragraph != "" {
			out, paragraph = append(out, Wrap(paragraph, helpWidth)...), ""
		}
	}
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		if line == "" || line[0] == ' ' {
			flush()
			out = append(out, line)
			continue
		}
		paragraph += " " + line
	}
	flush()
	return strings.Join(out, "\n")
}

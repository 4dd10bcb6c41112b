package testdoc

import (
	"reflect"
	"testing"
)

func TestParse(t *testing.T) {
	const text = "# Title\n\nText, which goes on\n    here, and is no code.\n\n    unmarked\n\n" +
		"## Part\n\n<!-- test TestOne TestTwo -->\n\n    # first\n    a\n\n      b\n\nText.\n<!-- example -->\n    c\n" +
		"\n*Not run by a test: it needs a cluster,\nand more.*\n\n```sh\nd\n\ne\n```\n\n- item\n\n    <!-- example -->\n" +
		"\n<!-- test TestOne -->\n\nWords between.\n\n    f\n"
	want := []Block{
		{Line: 6, Section: "Title", Text: "unmarked\n"},
		{Line: 12, Section: "Part", Text: "# first\na\n\n  b\n", Tests: []string{"TestOne", "TestTwo"}},
		{Line: 19, Section: "Part", Text: "c\n", Example: true},
		{Line: 25, Section: "Part", Text: "d\n\ne\n", Language: "sh", NotRun: "it needs a cluster,\nand more"},
		{Line: 32, Section: "Part", Text: "<!-- example -->\n"},
		{Line: 38, Section: "Part", Text: "f\n"},
	}
	got, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	for _, b := range got[1:4] {
		if !b.Marked() {
			t.Errorf("line %d is not marked", b.Line)
		}
	}
	if got[0].Marked() || got[4].Marked() || got[5].Marked() {
		t.Error("a block is marked that is not")
	}
	if b, err := Parse("```\nno end\n"); err == nil {
		t.Errorf("a fence without an end: %v", b)
	}
}

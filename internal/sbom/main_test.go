package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The list of each real program names every module that the go tool says is in it, and is the same each time.
func TestProgram(t *testing.T) {
	for _, name := range []string{"shared-altsd", "shared-altsd-signer"} {
		t.Run(name, func(t *testing.T) { testProgram(t, name) })
	}
}

func testProgram(t *testing.T, name string) {
	program := filepath.Join(t.TempDir(), name)
	build := exec.Command("go", "build", "-trimpath", "-o", program, "../../cmd/"+name)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var first, second bytes.Buffer
	for _, b := range []*bytes.Buffer{&first, &second} {
		if err := write(b, program, "1.2.3"); err != nil {
			t.Fatal(err)
		}
	}
	if first.String() != second.String() {
		t.Error("two runs differ")
	}
	var got bom
	if err := json.Unmarshal(first.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if c := got.Metadata.Component; c.Version != "1.2.3" || c.Name != "github.com/shared-altsd/shared-altsd" {
		t.Errorf("it is of %s %s", c.Name, c.Version)
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Components) != len(info.Deps)+1 || len(info.Deps) == 0 || got.Components[0].Name != "std" {
		t.Fatalf("%d components for %d modules", len(got.Components), len(info.Deps))
	}
	for i, d := range info.Deps {
		c := got.Components[i+1]
		if c.Name != d.Path || c.Version != d.Version || c.PURL != "pkg:golang/"+d.Path+"@"+d.Version ||
			len(c.Hashes) != 1 || len(c.Hashes[0].Content) != 64 {
			t.Errorf("module %s %s is listed as %+v", d.Path, d.Version, c)
		}
	}
}

func TestNoProgram(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := write(&bytes.Buffer{}, path, ""); err == nil || !strings.Contains(err.Error(), "is no Go program") {
		t.Errorf("error %v", err)
	}
}

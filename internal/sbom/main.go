// Command sbom writes the bill of materials of a Go program, CycloneDX 1.5 as JSON, from what the linker recorded in
// it: each module that was built in, with version and checksum, and the Go release.
//
//	go run ./internal/sbom bin/shared-altsd >shared-altsd.cdx.json
//
// A second argument is the version of the package that has the program: the program's own is that of its commit.
//
// It uses the standard library alone, so that making the list adds nothing to it. The same program gives the same
// bytes: there is neither a time nor a serial number.
package main

import (
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
)

type bom struct {
	Format      string       `json:"bomFormat"`
	SpecVersion string       `json:"specVersion"`
	Version     int          `json:"version"`
	Metadata    metadata     `json:"metadata"`
	Components  []component  `json:"components"`
	Depends     []dependency `json:"dependencies"`
}

type metadata struct {
	Component component `json:"component"`
}

type component struct {
	Type       string     `json:"type"`
	Ref        string     `json:"bom-ref"`
	Name       string     `json:"name"`
	Version    string     `json:"version,omitempty"`
	Hashes     []hash     `json:"hashes,omitempty"`
	PURL       string     `json:"purl"`
	Properties []property `json:"properties,omitempty"`
}

type hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

type property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

type dependency struct {
	Ref       string   `json:"ref"`
	DependsOn []string `json:"dependsOn"`
}

func main() {
	if len(os.Args) < 2 || len(os.Args) > 3 {
		fmt.Fprintln(os.Stderr, "usage: sbom PROGRAM [VERSION]")
		os.Exit(2)
	}
	if err := write(os.Stdout, os.Args[1], strings.Join(os.Args[2:], "")); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

// write writes the bill of a program; version is the package's, or empty.
func write(w io.Writer, program, version string) error {
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	info, err := buildinfo.ReadFile(program)
	if err != nil {
		return fmt.Errorf("%s is no Go program with build information: %w", program, err)
	}
	sum := sha256.Sum256(data)
	main := module(&info.Main)
	main.Type = "application"
	if version != "" {
		main.Version = version
	}
	main.Hashes = []hash{{"SHA-256", hex.EncodeToString(sum[:])}}
	for _, s := range info.Settings {
		main.Properties = append(main.Properties, property{"go:build:" + s.Key, s.Value})
	}
	std := component{Type: "library", Name: "std", Version: strings.TrimPrefix(info.GoVersion, "go")}
	std.PURL = "pkg:golang/std@" + std.Version
	std.Ref = std.PURL
	b := bom{Format: "CycloneDX", SpecVersion: "1.5", Version: 1, Metadata: metadata{main}, Components: []component{std}}
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		c := module(d)
		// The go.sum form: h1 is the SHA-256 of a list of the files' SHA-256.
		raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(d.Sum, "h1:"))
		if err != nil || len(raw) != sha256.Size {
			return fmt.Errorf("module %s@%s was built in without a checksum (%q); build from go.sum, without replacements",
				d.Path, d.Version, d.Sum)
		}
		c.Hashes = []hash{{"SHA-256", hex.EncodeToString(raw)}}
		c.Properties = []property{{"go:sum", d.Sum}}
		b.Components = append(b.Components, c)
	}
	direct := dependency{Ref: main.Ref}
	for _, c := range b.Components {
		direct.DependsOn = append(direct.DependsOn, c.Ref)
	}
	b.Depends = []dependency{direct}
	out, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return err
	}
	_, err = w.Write(append(out, '\n'))
	return err
}

func module(m *debug.Module) component {
	purl, version := "pkg:golang/"+m.Path, m.Version
	if version == "(devel)" { // built without the version control's word
		version = ""
	} else {
		purl += "@" + strings.ReplaceAll(version, "+", "%2B")
	}
	return component{Type: "library", Ref: purl, Name: m.Path, Version: version, PURL: purl}
}

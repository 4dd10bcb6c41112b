package execns

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

const nsswitchFile = "/etc/nsswitch.conf"

// nssToken is a source of nsswitch.conf, or in brackets what follows from the answer of the source before it.
var nssToken = regexp.MustCompile(`\[[^\]]*\]?|[^\s\[]+`)

// nsswitchWith returns an nsswitch.conf by which host names are looked up in the hosts file first, and with what they
// have there no other source is asked.
func nsswitchWith(text []byte) []byte {
	var out []byte
	found := false
	for line := range bytes.Lines(text) {
		sources, ok := hostSources(line)
		if !ok {
			out = append(out, line...)
			continue
		}
		if found { // C libraries differ in which of two lines counts
			continue
		}
		found = true
		out = append(out, "hosts: "+strings.Join(filesFirst(sources), " ")+"\n"...)
	}
	if !found {
		if len(out) > 0 && out[len(out)-1] != '\n' {
			out = append(out, '\n')
		}
		out = append(out, "hosts: files dns\n"...)
	}
	return out
}

// hostSources returns the sources of a line that is about hosts.
func hostSources(line []byte) (sources []string, ok bool) {
	text, _, _ := strings.Cut(string(line), "#")
	name, rest, ok := strings.Cut(text, ":")
	if !ok || strings.TrimSpace(name) != "hosts" {
		return nil, false
	}
	return nssToken.FindAllString(rest, -1), true
}

// filesFirst puts the hosts file before all other sources.
func filesFirst(sources []string) []string {
	out := []string{"files"}
	for i := 0; i < len(sources); i++ {
		if sources[i] != "files" {
			out = append(out, sources[i])
			continue
		}
		// What follows from the file's answer was meant for its old place; in front it may stay if it asks no further.
		for ; i+1 < len(sources) && sources[i+1][0] == '['; i++ {
			if len(out) == 1 && asksNoFurther(sources[i+1]) {
				out = append(out, sources[i+1])
			}
		}
	}
	return out
}

// asksNoFurther reports whether an action in brackets only ever ends the search.
func asksNoFurther(action string) bool {
	action = strings.ToLower(action)
	return !strings.Contains(action, "continue") && !strings.Contains(action, "merge")
}

// isFilesFirst reports whether host names are looked up as by nsswitchWith.
func isFilesFirst(text []byte) bool {
	found := false
	for line := range bytes.Lines(text) {
		sources, ok := hostSources(line)
		if !ok {
			continue
		}
		found = true
		if len(sources) == 0 || sources[0] != "files" {
			return false
		}
		for _, s := range sources[1:] {
			if s[0] != '[' {
				break
			}
			if !asksNoFurther(s) {
				return false
			}
		}
	}
	return found
}

// preparedResolver checks what Config.Prepared promises of how names are looked up.
func preparedResolver() error {
	if text, err := os.ReadFile(nsswitchFile); err != nil || !isFilesFirst(text) {
		return &Error{NotPrepared, fmt.Errorf("%s does not have files first in its line for hosts, so the network would be "+
			"asked for the handshaker's address: mount one with the line \"hosts: files dns\" over it", nsswitchFile)}
	}
	for _, dir := range nscdDirs {
		if _, err := os.Stat(filepath.Join(dir, "socket")); err == nil {
			return &Error{NotPrepared, fmt.Errorf("the name service cache is at %s and does not know this hosts file: hide it, "+
				"by InaccessiblePaths=-%[1]s of systemd", dir)}
		}
	}
	return nil
}

// olderOrders are files by which c-ares, of some versions, is told an order of its own, and the words with which a line
// begins there that tells it.
var olderOrders = map[string]string{
	"/etc/resolv.conf": `lookup|hostresorder`, "/etc/host.conf": `order`, "/etc/svc.conf": `hosts`,
	"/etc/netsvc.conf": `hosts`,
}

// checkOrders refuses files by which a library would ask the network first, whatever nsswitch.conf says.
func checkOrders() error {
	for file, words := range olderOrders {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // none of them has to be there
		}
		line := regexp.MustCompile(`(?im)^[ \t]*(?:` + words + `)[ \t=,]+(?:bind|dns|resolve).*$`)
		if found := line.Find(text); found != nil {
			return fmt.Errorf("%s has the line %q, by which some gRPC libraries ask the network for the handshaker's address "+
				"before the hosts file: take it out", file, bytes.TrimSpace(found))
		}
	}
	return nil
}

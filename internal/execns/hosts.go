package execns

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
)

const (
	hostsFile = "/etc/hosts"
	// handshakerName is the name by which stock gRPC reaches its handshaker service, with and without a dot at its end.
	handshakerName = "metadata.google.internal"
)

// hostsWith returns a hosts file in which addr has the handshaker's names, and nothing else has. It stands there in its
// IPv6 form too: a resolver that found no IPv6 address in the file would ask the network for one, wait for the answer,
// and believe it.
func hostsWith(hosts []byte, addr net.IP) []byte {
	out := fmt.Appendf(nil, "%[1]s %[2]s %[2]s.\n::ffff:%[1]s %[2]s %[2]s.\n", addr, handshakerName)
	for line := range bytes.Lines(hosts) {
		fields := hostsFields(line)
		kept := fields[:min(len(fields), 1)]
		for _, name := range fields[len(kept):] {
			if !isHandshaker(name) {
				kept = append(kept, name)
			}
		}
		switch {
		case len(kept) == len(fields):
			out = append(out, line...)
		case len(kept) > 1:
			out = append(out, strings.Join(kept, " ")+"\n"...)
		}
	}
	return out
}

// hostsAddresses returns the addresses that a hosts file has for name, in its order and as they are written.
func hostsAddresses(hosts []byte, name string) (addrs []string) {
	for line := range bytes.Lines(hosts) {
		fields := hostsFields(line)
		if slices.ContainsFunc(fields[min(len(fields), 1):], func(f string) bool { return strings.EqualFold(f, name) }) {
			addrs = append(addrs, fields[0])
		}
	}
	return addrs
}

// hostsFields returns address and names of a line, without the comment.
func hostsFields(line []byte) []string {
	text, _, _ := strings.Cut(string(line), "#")
	return strings.Fields(text)
}

func isHandshaker(name string) bool {
	return strings.EqualFold(strings.TrimSuffix(name, "."), handshakerName)
}

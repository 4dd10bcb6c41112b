package execns

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
)

// What leads gRPC's libraries elsewhere, by environment. C-core sends what it dials to the proxy of the first of
// grpc_proxy, https_proxy and http_proxy, unless the name ends as an entry does of no_grpc_proxy or, only where that is
// not set, of no_proxy; and what it has resolved to the proxy of GRPC_ADDRESS_HTTP_PROXY. grpc-go follows HTTPS_PROXY
// and NO_PROXY, in either case. For grpc-java see java.go.
const (
	addressProxied = "GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES"
	metadataHost   = "GCE_METADATA_HOST" // grpc-java's address of the handshaker, from 1.77 on
	javaProxy      = "GRPC_PROXY_EXP"    // a proxy without exceptions, of grpc-java up to 1.68
)

// environ returns the command's environment: the caller's, with proxies kept away from the handshaker, which is at addr
// and would be whoever they lead to, and without variables that lead elsewhere and know no exception; and with the
// socket for altscreds.
func environ(env []string, socket string, addr net.IP) []string {
	get := func(name string) (value string, set bool) {
		for _, kv := range slices.Backward(env) {
			if k, v, _ := strings.Cut(kv, "="); k == name {
				return v, true
			}
		}
		return "", false
	}
	names := handshakerName + "," + handshakerName + "."
	lower, _ := get("no_proxy")
	upper, _ := get("NO_PROXY")
	// Programs read one of the two, so a list that stood in one alone must not be hidden by the other.
	lower, upper = join(lower, upper, names), join(upper, lower, names)
	set := []string{localsock.Variable + "=" + socket, "no_proxy=" + lower, "NO_PROXY=" + upper}
	if grpc, ok := get("no_grpc_proxy"); ok {
		// C-core alone reads it, to which "*" is nothing special.
		set = append(set, "no_grpc_proxy="+strings.TrimPrefix(grpc+","+names, ","))
	} else if lower == "*" {
		set = append(set, "no_grpc_proxy="+names)
	}
	if list, _ := get(addressProxied); list != "" {
		set = append(set, addressProxied+"="+without(list, addr))
	}
	replaced := []string{localsock.Variable, "no_proxy", "NO_PROXY", "no_grpc_proxy", addressProxied, metadataHost,
		javaProxy}
	kept := slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return slices.Contains(replaced, k)
	})
	return append(kept, set...)
}

// join appends more to the list, or to the other list where this one is empty. A list of all, which many programs know
// only if it stands alone, stays as it is.
func join(list, other, more string) string {
	if list == "" {
		list = other
	}
	switch list {
	case "":
		return more
	case "*":
		return list
	}
	return list + "," + more
}

// without returns the list of addresses without the entries that are for addr: networks, and ends of its text.
func without(list string, addr net.IP) string {
	ip, _ := netip.AddrFromSlice(addr.To4())
	mapped := netip.AddrFrom16(ip.As16()) // as the hosts file has it, too
	entries := slices.DeleteFunc(strings.Split(list, ","), func(entry string) bool {
		entry = strings.TrimSpace(entry)
		if strings.Contains(entry, "/") {
			network, err := netip.ParsePrefix(entry)
			return err != nil || network.Contains(ip) || network.Contains(mapped)
		}
		return strings.HasSuffix(ip.String(), entry)
	})
	return strings.Join(entries, ",")
}

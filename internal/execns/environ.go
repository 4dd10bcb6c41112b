package execns

import (
	"slices"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/localsock"
)

// environ returns the command's environment: the caller's, with proxies kept away from the handshaker's name (C-core
// would send its handshakes to a proxy) and without the variable that would lead Java elsewhere, and with the socket
// for altscreds.
func environ(env []string, socket string) []string {
	get := func(name string) string {
		for _, kv := range slices.Backward(env) {
			if k, v, _ := strings.Cut(kv, "="); k == name {
				return v
			}
		}
		return ""
	}
	names := handshakerName + "," + handshakerName + "."
	lower, upper, grpc := get("no_proxy"), get("NO_PROXY"), get("no_grpc_proxy")
	// Programs read one of the two, so a list that stood in one alone must not be hidden by the other.
	set := []string{localsock.Variable + "=" + socket,
		"no_proxy=" + join(lower, upper, names), "NO_PROXY=" + join(upper, lower, names)}
	if grpc != "" {
		set = append(set, "no_grpc_proxy="+join(grpc, "", names))
	}
	replaced := []string{localsock.Variable, "no_proxy", "NO_PROXY", "no_grpc_proxy", "GCE_METADATA_HOST"}
	kept := slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return slices.Contains(replaced, k)
	})
	return append(kept, set...)
}

// join appends more to the list, or to the other list where this one is empty.
func join(list, other, more string) string {
	if list == "" {
		list = other
	}
	if list == "" {
		return more
	}
	return list + "," + more
}

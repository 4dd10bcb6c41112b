package listen

import (
	"strings"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// prefix begins the names of the variables that say who a command's peer is. None of our own environment is passed on.
const prefix = "ALTSD_"

// environ returns the environment of a command: own, and who its peer is.
func environ(own []string, peer *altscreds.Peer, service, handshake string) []string {
	var env []string
	for _, kv := range own {
		if name, _, _ := strings.Cut(kv, "="); !strings.HasPrefix(ascii.Lower(name), "altsd_") {
			env = append(env, kv)
		}
	}
	env = append(env, prefix+"PEER="+peer.Account, prefix+"PEER_USER="+peer.User, prefix+"PEER_MACHINE="+peer.Machine,
		prefix+"SERVICE="+service, prefix+"HANDSHAKE="+handshake)
	// What the peer's machine states, in the form of docs/spec/protocol.md, section 5.4.
	for _, name := range []string{"uid", "groups", "socket"} {
		if v, ok := peer.Attributes[name]; ok && ascii.Visible(v) {
			env = append(env, prefix+"PEER_"+strings.ToUpper(name)+"="+v)
		}
	}
	return env
}

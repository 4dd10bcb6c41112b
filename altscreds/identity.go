package altscreds

import (
	"errors"
	"fmt"
	"os"
)

// An identity is what the daemon, and the permissions of its socket, know this process by. A connection keeps the one
// under which it was made, so that none may outlive a change: a server that drops root would go on speaking as root.
type identity struct {
	uid, gid int    // effective
	groups   string // supplementary
}

// currentIdentity returns the identity of the calling thread. Go changes that of all threads together; whoever changes
// one by a raw system call has to lock the goroutine to it.
func currentIdentity() identity {
	groups, err := os.Getgroups()
	return identity{os.Geteuid(), os.Getegid(), fmt.Sprint(groups, err)}
}

// errIdentityChanged is why a connection is not made again that another identity began.
var errIdentityChanged = errors.New("this program changed its uid or its groups during the handshake")

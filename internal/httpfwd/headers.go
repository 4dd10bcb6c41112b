package httpfwd

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/shared-altsd/shared-altsd/altscreds"
	"github.com/shared-altsd/shared-altsd/internal/ascii"
)

// The headers of a request that tell the backend who calls. The family is every name that begins with Altsd.
const (
	headerPeer      = "Altsd-Peer"
	headerUser      = "Altsd-Peer-User"
	headerMachine   = "Altsd-Peer-Machine"
	headerUID       = "Altsd-Peer-Uid"
	headerGroups    = "Altsd-Peer-Groups"
	headerSocket    = "Altsd-Peer-Socket"
	headerHandshake = "Altsd-Handshake"
	headerService   = "Altsd-Service"
)

// A Caller is whom the handshake of a connection has proved.
type Caller struct {
	Peer *altscreds.Peer
	// Protocol is the application protocol that was negotiated.
	Protocol string
	// Handshake is the ID under which both daemons have logged the handshake, "" where it is not known.
	Handshake string
}

// identity returns the headers that tell of the caller.
func (c Caller) identity(service string) (map[string]string, error) {
	if c.Peer == nil || c.Peer.Account == "" {
		return nil, errors.New("the peer has no proved account, and nothing is forwarded of such")
	}
	headers := map[string]string{headerPeer: c.Peer.Account, headerUser: c.Peer.User, headerMachine: c.Peer.Machine,
		headerUID: c.Peer.Attributes["uid"], headerGroups: c.Peer.Attributes["groups"],
		headerSocket: c.Peer.Attributes["socket"], headerHandshake: c.Handshake, headerService: service}
	for name, value := range headers {
		switch {
		case value == "":
			delete(headers, name)
		case !ascii.Visible(value):
			return nil, fmt.Errorf("the value of %s would hold what is not visible ASCII", name)
		}
	}
	return headers, nil
}

// ours reports whether some program could take a header of this name for one of the family, or for what a proxy tells of
// the peer's address: CGI and WSGI know no case and no difference between - and _, other servers none between any
// punctuation. So letters and digits alone count.
func ours(name string) bool {
	var folded [16]byte
	n := 0
	for i := 0; i < len(name) && n < len(folded); i++ {
		switch c := name[i]; {
		case 'A' <= c && c <= 'Z':
			folded[n] = c + 'a' - 'A'
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
			folded[n] = c
		default:
			continue
		}
		n++
	}
	s := string(folded[:n])
	return strings.HasPrefix(s, "altsd") || strings.HasPrefix(s, "xforwarded") || s == "forwarded" || s == "xrealip"
}

// cleanse takes out of headers or trailers what only the forward may say.
func cleanse(h http.Header) {
	for name := range h {
		if ours(name) {
			delete(h, name)
		}
	}
}

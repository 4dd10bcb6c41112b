package noiseproto

import (
	"encoding/binary"
	"fmt"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

// The versions of the protocol that this package serves. A further version is added here, in newNoise (its suite and
// prologue) and nowhere else as long as it has the same three messages.
const (
	lowestVersion  = 1
	highestVersion = 1
)

// StatusFrame returns the 12 bytes of a status frame of code c that can be sent outside any handshake, for example by a
// daemon that refuses a peer before it has read anything of it. docs/spec/protocol.md, section 3.2.
func StatusFrame(c reason.Code) []byte {
	return appendStatus(nil, c, highestVersion, lowestVersion)
}

// appendStatus appends a status frame whose header carries version and whose body says that the versions from lowest to
// highestVersion are served.
func appendStatus(b []byte, c reason.Code, version, lowest byte) []byte {
	var f [headerSize + statusSize]byte
	putHeader(f[:], version, frameStatus, statusSize)
	binary.BigEndian.PutUint16(f[headerSize:], uint16(c))
	f[headerSize+2], f[headerSize+3] = lowest, highestVersion
	return append(b, f[:]...)
}

// A status is the body of a status frame.
type status struct {
	code            reason.Code
	lowest, highest byte
}

// parseStatus reads the body of a status frame.
func parseStatus(body []byte) (status, error) {
	if len(body) != statusSize {
		return status{}, reason.Errorf(reason.Malformed, "the peer sent a status of %d bytes, it must have %d", len(body),
			statusSize)
	}
	return status{reason.Code(binary.BigEndian.Uint16(body)), body[2], body[3]}, nil
}

// refusal returns the error that a status with a code other than 0 means. mine is the version of our own frames.
func (s status) refusal(mine byte) *reason.Error {
	e := &reason.Error{Code: s.code, ByPeer: true}
	if s.code == reason.UnsupportedVersion {
		e.Detail = fmt.Sprintf("it serves %s, this daemon spoke %d; bring both machines to releases that share a version",
			versions(s.lowest, s.highest), mine)
	}
	return e
}

func versions(lo, hi byte) string {
	if lo == hi {
		return fmt.Sprintf("version %d", lo)
	}
	return fmt.Sprintf("versions %d to %d", lo, hi)
}

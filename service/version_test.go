package service

import (
	"fmt"
	"testing"

	"google.golang.org/grpc/codes"
)

// The least version that the administrator accepts is the handshake's, in both roles: version 1, the only one there is,
// passes where that is demanded and not where a later one is.
func TestMinVersion(t *testing.T) {
	peer := startDaemon(t, "beta.test", Config{})
	for _, v := range []byte{0, 1, 2} {
		t.Run(fmt.Sprint(v), func(t *testing.T) {
			d := startDaemon(t, "beta.test", Config{MinVersion: v})
			if v < 2 {
				join(t, open(t, d, ""), open(t, peer, ""), clientStart(nil), serverStart(nil, nil), 1<<20)
				join(t, open(t, peer, ""), open(t, d, ""), clientStart(nil), serverStart(nil, nil), 1<<20)
				return
			}
			_, err := open(t, d, "").do(clientStart(nil))
			wantErr(t, err, codes.Internal, "internal")
			c, s := open(t, peer, ""), open(t, d, "")
			refusal := s.must(t, serverStart(c.must(t, clientStart(nil)).OutFrames, nil))
			_, err = c.do(next(refusal.OutFrames))
			wantErr(t, err, codes.Unavailable, "by_peer internal")
			_, err = s.recv()
			wantErr(t, err, codes.Internal, "internal")
		})
	}
}

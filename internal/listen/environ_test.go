package listen

import (
	"slices"
	"testing"

	"github.com/shared-altsd/shared-altsd/altscreds"
)

func TestEnviron(t *testing.T) {
	peer := &altscreds.Peer{Account: "alice@alpha.example.com", User: "alice", Machine: "alpha.example.com",
		Attributes: map[string]string{"uid": "1000", "groups": "domain%20users,wheel", "socket": "blue\nALTSD_PEER=root", "other": "x"}}
	own := []string{"PATH=/bin", "ALTSD_PEER=root@beta", "altsd_peer_user=root", "ALTSD_PEER_UID=0", "ALTSD_ANYTHING", "SHARED_ALTS_SOCKET=/s",
		"XALTSD_=1"}
	want := []string{"PATH=/bin", "SHARED_ALTS_SOCKET=/s", "XALTSD_=1", "ALTSD_PEER=alice@alpha.example.com", "ALTSD_PEER_USER=alice",
		"ALTSD_PEER_MACHINE=alpha.example.com", "ALTSD_SERVICE=rsync", "ALTSD_HANDSHAKE=0123", "ALTSD_PEER_UID=1000",
		"ALTSD_PEER_GROUPS=domain%20users,wheel"}
	if got := environ(own, peer, "rsync", "0123"); !slices.Equal(got, want) {
		t.Errorf("%q\nwant %q", got, want)
	}
	peer.Attributes = nil
	if got := environ(own, peer, "rsync", "0123"); !slices.Equal(got, want[:8]) {
		t.Errorf("without attributes: %q", got)
	}
}

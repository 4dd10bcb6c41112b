package daemon

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/service"
)

func TestUnfitAccounts(t *testing.T) {
	if faults := unfitFaults(nil); faults != nil {
		t.Error(faults)
	}
	unfit := []service.UnfitAccount{
		{UID: 1, Name: "alice@ad.example.com", Err: fmt.Errorf("it cannot be used: %w", certbind.ValidAccount("alice@ad", false))},
		{UID: 2, Name: "o'neil\x1b[2J", Err: errors.New("no")},
		{UID: 3, Name: "müller von", Err: errors.New("no")},
		{UID: 4, Name: "Carol", Err: errors.New("it has capitals")},
	}
	for i := range 7 {
		unfit = append(unfit, service.UnfitAccount{UID: uint32(10 + i), Name: `AD\u`, Err: certbind.ValidAccount(`ad\u`, false)})
	}
	faults := unfitFaults(unfit)
	if len(faults) != 3 {
		t.Fatalf("%+v", faults)
	}
	for i, want := range [][]string{
		{"8 of this machine's accounts", `"alice@ad.example.com" (uid 1)`, `"AD\\u" (uid 13)`, "3 more", "--account-domain"},
		{"2 of this machine's accounts", `"o'neil\x1b[2J" (uid 2) by "'\x1b["`, `"müller von" (uid 3) by "ü "`, "sss_override"},
		{"1 of this machine's accounts", `"Carol" (uid 4): it has capitals`},
	} {
		text := faults[i].What + faults[i].Cure
		for _, w := range want {
			if !strings.Contains(text, w) {
				t.Errorf("no %q in %q", w, text)
			}
		}
		if !faults[i].Warning || strings.ContainsRune(text, 0x1b) {
			t.Errorf("%+v", faults[i])
		}
	}
}

func TestUsersOfProcesses(t *testing.T) {
	t.Setenv("SUDO_UID", "4711")
	uids := usersOfProcesses()
	if len(uids) == 0 || uids[0] != 4711 || !slices.Contains(uids, uint32(os.Geteuid())) || len(uids) > accountsLooked {
		t.Error(uids)
	}
	for i, uid := range uids {
		if slices.Contains(uids[:i], uid) {
			t.Errorf("%d is there twice", uid)
		}
	}
	t.Setenv("SUDO_UID", "-1")
	if uids := usersOfProcesses(); slices.Contains(uids, uint32(4711)) {
		t.Error(uids)
	}
}

//go:build cgo

package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	p11 "github.com/miekg/pkcs11"

	"github.com/shared-altsd/shared-altsd/internal/safepath"
	"github.com/shared-altsd/shared-altsd/internal/signer/device"
)

// Open opens the key.
func Open(ctx context.Context, u *URI, pin *device.Secret) (*device.Key, error) {
	return device.Open(ctx, func() (device.Opened, error) {
		k := &key{uri: u, pin: pin}
		if err := k.open(); err != nil {
			k.Close()
			return nil, explain(err)
		}
		return k, nil
	})
}

// flag is a bit of a token's flags.
func flag(info p11.TokenInfo, bit uint) bool { return info.Flags&bit != 0 }

// open loads the module and finds token and key.
func (k *key) open() error {
	// What is loaded runs with the key in its reach: nobody else may be able to put another one there.
	path, err := safepath.File(k.uri.Module)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("there is no module at %s: install the token's driver, or give the right module-path", k.uri.Module)
	}
	if err != nil {
		return fmt.Errorf("the module: %w", err)
	}
	if info, err := os.Stat(path); err != nil || !safepath.Ours(info) || info.Mode()&0o022 != 0 {
		return fmt.Errorf("the module %s may be changed by others than root and the signer: give it to root, and 'chmod go-w' it", path)
	}
	if k.ctx = p11.New(path); k.ctx == nil {
		return fmt.Errorf("the module %s is not one of PKCS #11, or lacks a library ('ldd %s' says which)", path, path)
	}
	if err := k.ctx.Initialize(); err != nil {
		k.ctx.Destroy()
		k.ctx = nil
		return fmt.Errorf("the module %s does not start: %w", path, err)
	}
	slot, info, err := k.find()
	if err != nil {
		return err
	}
	if k.session, err = k.ctx.OpenSession(slot, p11.CKF_SERIAL_SESSION); err != nil {
		return fmt.Errorf("the token gives no session: %w", err)
	}
	k.inSession = true
	if flag(info, p11.CKF_LOGIN_REQUIRED) {
		if err := k.login(info); err != nil {
			return err
		}
	}
	if err := k.findKey(); err != nil {
		return err
	}
	return k.chooseScheme(slot)
}

// find returns the one slot whose token is meant.
func (k *key) find() (slot uint, info p11.TokenInfo, err error) {
	slots, err := k.ctx.GetSlotList(true)
	if err != nil {
		return 0, info, fmt.Errorf("the module does not list its tokens: %w", err)
	}
	var there []string
	found := 0
	for _, s := range slots {
		i, err := k.ctx.GetTokenInfo(s)
		if err != nil || !flag(i, p11.CKF_TOKEN_INITIALIZED) {
			continue // pulled out in between, or without keys
		}
		there = append(there, fmt.Sprintf("%q", strings.TrimRight(i.Label, " ")))
		if k.uri.Slot != nil && *k.uri.Slot != s || !means(k.uri.Token, i.Label) || !means(k.uri.Manufacturer, i.ManufacturerID) ||
			!means(k.uri.Serial, i.SerialNumber) || !means(k.uri.Model, i.Model) {
			continue
		}
		slot, info = s, i
		found++
	}
	const show = 8
	if len(there) > show {
		there = append(there[:show], "...")
	}
	switch {
	case found == 1:
		return slot, info, nil
	case found > 1:
		return 0, info, fmt.Errorf("%d tokens are meant (there are %s): name one by its serial", found, strings.Join(there, ", "))
	case len(there) == 0:
		return 0, info, errors.New("there is no token: plug it in; for a card or a USB token see whether pcscd runs")
	}
	return 0, info, fmt.Errorf("the token is not there (there are %s): plug it in, or give its right name", strings.Join(there, ", "))
}

// means reports whether a token's attribute, padded with blanks, is the one that was asked for, if one was.
func means(asked, has string) bool { return asked == "" || asked == strings.TrimRight(has, " \x00") }

// login gives the token the PIN, but where a wrong one would lock it.
func (k *key) login(info p11.TokenInfo) error {
	const unblock = "unblock it with the SO's PIN or its PUK ('pkcs11-tool --init-pin', 'ykman piv access unblock-pin')"
	switch {
	case flag(info, p11.CKF_USER_PIN_LOCKED):
		return errors.New("the token's PIN is locked, since too many wrong ones were tried: " + unblock)
	case flag(info, p11.CKF_USER_PIN_FINAL_TRY):
		return errors.New("the next wrong PIN would lock the token, so none is tried: give it the right one by hand first " +
			"('pkcs11-tool --login --test'), and see that the PIN's file has the same")
	case !flag(info, p11.CKF_USER_PIN_INITIALIZED):
		return errors.New("the token has no PIN yet: set one ('pkcs11-tool --init-pin')")
	case flag(info, p11.CKF_PROTECTED_AUTHENTICATION_PATH) && !k.pin.Given():
		return errors.New("the token takes its PIN by a keypad of its own alone, at which a signer has nobody: use another reader")
	}
	return k.usePIN(p11.CKU_USER)
}

// notCounted are failures of a login by which no token has judged the PIN: it, or the session, was gone. Of every other one,
// and vendors have their own, a token may have counted the PIN as a wrong one.
var notCounted = []uint{p11.CKR_DEVICE_REMOVED, p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_TOKEN_NOT_RECOGNIZED, p11.CKR_SESSION_CLOSED,
	p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SLOT_ID_INVALID, p11.CKR_CRYPTOKI_NOT_INITIALIZED, p11.CKR_HOST_MEMORY}

// usePIN logs in, for the session or for the signature that was begun.
func (k *key) usePIN(user uint) error {
	return k.pin.Use(func(pin []byte) (refused bool, err error) {
		err = k.ctx.Login(k.session, user, string(pin))
		if said := code(err); said == p11.CKR_OK || said == p11.CKR_USER_ALREADY_LOGGED_IN {
			return false, nil
		}
		return !slices.Contains(notCounted, code(err)), err
	})
}

// code returns what the module says, CKR_OK for no error, and CKR_GENERAL_ERROR for one that is not the module's.
func code(err error) uint {
	var said p11.Error
	switch {
	case err == nil:
		return p11.CKR_OK
	case errors.As(err, &said):
		return uint(said)
	}
	return p11.CKR_GENERAL_ERROR
}

// explain adds cures to what a module says.
func explain(err error) error {
	cure := ""
	switch code(err) {
	case p11.CKR_DEVICE_REMOVED, p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_TOKEN_NOT_RECOGNIZED, p11.CKR_SLOT_ID_INVALID:
		cure = "plug the token in"
	case p11.CKR_DEVICE_ERROR:
		cure = "see the log of pcscd, or of the token's driver"
	case p11.CKR_PIN_LOCKED:
		cure = "unblock it with the SO's PIN or its PUK"
	case p11.CKR_PIN_EXPIRED:
		cure = "set a new PIN"
	case p11.CKR_KEY_FUNCTION_NOT_PERMITTED:
		cure = "the key is not one for signatures: make one with --usage-sign"
	default:
		return err
	}
	return fmt.Errorf("%w: %s", err, cure)
}

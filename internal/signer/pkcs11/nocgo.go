//go:build !cgo

package pkcs11

import (
	"context"
	"errors"

	"github.com/shared-altsd/shared-altsd/internal/signer/device"
)

// Open says that there is no PKCS #11 here.
func Open(context.Context, *URI, *device.Secret) (*device.Key, error) {
	return nil, errors.New("this signer was built without cgo, by which modules of PKCS #11 are loaded: take the one of the package " +
		"shared-altsd-signer, or build it with CGO_ENABLED=1 and a C compiler")
}

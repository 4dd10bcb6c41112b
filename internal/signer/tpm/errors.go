package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// refusedAuth reports whether the TPM has refused a passphrase, and may have counted that.
func refusedAuth(err error) bool {
	return errors.Is(err, tpm2.TPMRCAuthFail) || errors.Is(err, tpm2.TPMRCBadAuth)
}

// explain adds causes and cures to what a TPM says.
func explain(err error) error {
	switch {
	case errors.Is(err, tpm2.TPMRCLockout):
		return fmt.Errorf("the TPM is locked for keys with a passphrase, since too many wrong ones were tried: it opens by itself after "+
			"a while ('tpm2_getcap properties-variable', TPM2_PT_LOCKOUT_INTERVAL), or by 'tpm2_dictionarylockout --clear-lockout': %w", err)
	case errors.Is(err, tpm2.TPMRCInitialize):
		return fmt.Errorf("the TPM was not started up, as the kernel does it: 'tpm2_startup -c' for an emulator: %w", err)
	case errors.Is(err, tpm2.TPMRCFailure):
		return fmt.Errorf("the TPM has failed a test of its own, and stays so until it is reset: restart the machine: %w", err)
	case errors.Is(err, tpm2.TPMRCObjectMemory), errors.Is(err, tpm2.TPMRCSessionMemory):
		return fmt.Errorf("the TPM is full with what others have left in it: use /dev/tpmrm0, which makes room, or 'tpm2_flushcontext -t' "+
			"and '-l': %w", err)
	case errors.Is(err, tpm2.TPMRCScheme):
		return fmt.Errorf("the TPM does not sign with this key as peers demand it: %w; %s", err, anew)
	}
	return err
}

// retrying repeats commands that the TPM asks to repeat.
type retrying struct{ wire transport.TPM }

// Send is transport.TPM's.
func (r retrying) Send(command []byte) ([]byte, error) {
	wait := 20 * time.Millisecond
	for range 8 {
		response, err := r.wire.Send(command)
		if err != nil {
			return nil, err
		}
		switch tpm2.TPMRC(binary.BigEndian.Uint32(response[6:])) {
		case tpm2.TPMRCRetry, tpm2.TPMRCTesting, tpm2.TPMRCYielded:
			time.Sleep(wait)
			wait *= 2
			continue
		}
		return response, nil
	}
	return nil, errors.New("the TPM is busy with itself for seconds; see whether it works")
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/cli"
	"github.com/shared-altsd/shared-altsd/internal/safepath"
	"github.com/shared-altsd/shared-altsd/internal/signer"
	"github.com/shared-altsd/shared-altsd/internal/signer/device"
	"github.com/shared-altsd/shared-altsd/internal/signer/pkcs11"
	"github.com/shared-altsd/shared-altsd/internal/signer/tpm"
)

// keyFlags say which key is meant, and where it is.
type keyFlags struct {
	file     string // of PEM, which says by its header what it is
	kind     string // "tpm" or "file" where that must be what it is
	handle   uint32
	uri      *pkcs11.URI
	tpm, pin string

	certificates string
}

func (k *keyFlags) options() []cli.Option {
	const group = "The key:"
	return []cli.Option{
		{Name: "key", Group: group, Value: cli.Func("KEY", k.set).CompleteFiles(),
			Help: "The machine's private key: tpm:FILE, a key in PEM that is wrapped for this machine's TPM (TSS2 PRIVATE KEY); " +
				"handle:0x81..., one that the TPM keeps; pkcs11:..., a URI of RFC 7512 with module-path; or file:FILE, one that no device " +
				"protects. A FILE alone is known by its header."},
		{Name: "certificates", Group: group, Value: cli.File(&k.certificates),
			Help: "PEM file with the machine's certificate, as the daemon has it in --credentials. It is read again when it changes."},
		{Name: "device", Default: "/dev/tpmrm0", Group: group, Value: cli.File(&k.tpm),
			Help: "The TPM: the kernel's device, or the UNIX socket of an emulator."},
		{Name: "pin-file", Group: group, Value: cli.File(&k.pin),
			Help: "File with the token's PIN or the TPM key's passphrase, one line, the signer's or root's alone. Without it " +
				"$CREDENTIALS_DIRECTORY/pin, if there is one."},
	}
}

// set understands the value of --key.
func (k *keyFlags) set(v string) (err error) {
	kind, rest, _ := strings.Cut(v, ":")
	switch {
	case v == "":
		return errors.New("empty: give a value")
	case pkcs11.IsURI(v):
		k.uri, err = pkcs11.ParseURI(v)
	case kind == "handle":
		k.handle, err = tpm.ParseHandle(rest)
	case kind == "tpm" || kind == "file":
		if k.kind, k.file = kind, rest; rest == "" {
			err = fmt.Errorf("%s: has no FILE behind it", kind)
		}
	default:
		k.file = v
	}
	return err
}

// check completes the flags, and says what is missing.
func (k *keyFlags) check() error {
	if k.certificates == "" {
		return cli.Usagef("--certificates is missing: give the PEM file with the machine's certificate, which the daemon has in " +
			"--credentials")
	}
	return k.checkKey()
}

// checkKey is check for a command that needs no certificate.
func (k *keyFlags) checkKey() error {
	switch {
	case k.file == "" && k.handle == 0 && k.uri == nil:
		return cli.Usagef("--key is missing: give tpm:FILE, handle:0x81..., or pkcs11:URI (docs/hardware.md)")
	case k.uri != nil && k.uri.PINSource != "" && k.pin != "":
		return cli.Usagef("the PIN is named twice, by pin-source in --key and by --pin-file: leave one")
	}
	if k.uri != nil && k.pin == "" {
		k.pin = k.uri.PINSource
	}
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); k.pin == "" && dir != "" {
		if path := filepath.Join(dir, "pin"); exists(path) {
			k.pin = path
		}
	}
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// opener returns what opens the key. The PIN's file is one for all times that it is called: a PIN that was refused once is not
// tried again.
func (k *keyFlags) opener() func(context.Context) (signer.Key, error) {
	secret := device.NewSecret(k.pin)
	return func(ctx context.Context) (signer.Key, error) {
		c := tpm.Config{Device: k.tpm, Handle: k.handle, Secret: secret}
		switch {
		case k.uri != nil:
			return opened(pkcs11.Open(ctx, k.uri, secret))
		case k.handle != 0:
			return opened(tpm.Open(ctx, c))
		}
		content, err := readOwn(k.file, tpm.MaxFile)
		if err != nil {
			return nil, fmt.Errorf("--key: %w", err)
		}
		defer clear(content)
		wrapped := tpm.IsKeyFile(content)
		switch {
		case wrapped && k.kind == "file":
			return nil, device.Unfit("--key: %s holds a key that is wrapped for a TPM: name it as tpm:%[1]s", k.file)
		case wrapped || k.kind == "tpm":
			k.kind, c.File = "tpm", content
			return opened(tpm.Open(ctx, c))
		}
		return signer.OpenFile(k.file)
	}
}

// opened makes no Key of a nil one.
func opened(k *device.Key, err error) (signer.Key, error) {
	if err != nil {
		return nil, err
	}
	return k, nil
}

// where says in a few words where the key is, once it was opened.
func (k *keyFlags) where() string {
	switch {
	case k.uri != nil:
		return "the PKCS #11 token, by " + k.uri.Module
	case k.handle != 0:
		return fmt.Sprintf("the TPM at %s, handle %#x", k.tpm, k.handle)
	case k.kind == "tpm":
		return fmt.Sprintf("the TPM at %s, wrapped in %s", k.tpm, k.file)
	}
	return "the file " + k.file
}

// readOwn reads a file that names the key or holds it.
func readOwn(path string, max int64) ([]byte, error) {
	content, _, err := safepath.ReadOwn(path, max, "could put another key there")
	return content, err
}

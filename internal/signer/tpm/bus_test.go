package tpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/signer/device"
	"github.com/shared-altsd/shared-altsd/internal/testdevice"
)

// code is that of a command.
func code(command []byte) tpm2.TPMCC { return tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) }

// tap is somebody on the bus between the TPM and the path that it returns: he sees, and may change, commands and responses.
func tap(t *testing.T, p *testdevice.TPM, command func([]byte), response func(command, response []byte)) string {
	t.Helper()
	path := filepath.Join(p.Dir, "tap")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	carry := func(client net.Conn) error {
		defer client.Close()
		behind, err := connect(p.Socket)
		if err != nil {
			return err
		}
		defer behind.Close()
		for buffer := make([]byte, maxResponse); ; {
			n, err := client.Read(buffer)
			if err != nil {
				return err
			}
			command(buffer[:n])
			answer, err := behind.Send(buffer[:n])
			if err != nil {
				return err
			}
			response(buffer[:n], answer)
			if _, err := client.Write(answer); err != nil {
				return err
			}
		}
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			carry(client) // to its end, which is the client's
		}
	}()
	return path
}

// TestRule63Bus: a passphrase does not pass over the bus, by either way to a key, and a digest that was exchanged there is not signed.
func TestRule63Bus(t *testing.T) {
	const passphrase = "what is searched for"
	for _, test := range []struct {
		name, script string
		handle       uint32
	}{
		{"in a file", provider + "-algorithm EC -pkeyopt group:P-256 -pkeyopt 'user-auth:" + passphrase + "'", 0},
		{"at a handle", keep("ecc256", "-p '"+passphrase+"'"), 0x81000100},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := testdevice.StartTPM(t)
			p.Shell(test.script)
			var seen []byte
			var exchange atomic.Bool
			between := tap(t, p, func(command []byte) {
				seen = append(seen, command...)
				if digest := sha256.Sum256(certbind.SignatureInput([]byte("a statement"))); exchange.Load() {
					if at := bytes.Index(command, digest[:]); at >= 0 {
						command[at] ^= 1
					}
				}
			}, func(_, response []byte) { seen = append(seen, response...) })
			c := Config{Device: between, Handle: test.handle, Secret: device.NewSecret(p.Write("pin", passphrase))}
			if test.handle == 0 {
				c.File = p.Read("key.pem")
			}
			k, err := Open(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			if err := sign(k); err != nil {
				t.Error(err)
			}
			exchange.Store(true)
			if err := sign(k); err == nil || !strings.Contains(err.Error(), "refuse") {
				t.Errorf("an exchanged digest: %v", err)
			}
			k.Close()
			if len(seen) < 500 || bytes.Contains(seen, []byte(passphrase)) {
				t.Errorf("of the %d bytes on the bus some are the passphrase", len(seen))
			}
		})
	}
}

// TestRule63Salt: a TPM that makes another salt than one of 32 bytes does raw RSA, or the key is refused. (swtpm makes 32; between
// it and the signer there is somebody here who spoils each signature that it pads itself.)
func TestRule63Salt(t *testing.T) {
	p := testdevice.StartTPM(t)
	p.Shell(provider + "-algorithm RSA -pkeyopt bits:2048\n" +
		"tpm2_createprimary -Q -C o -g sha256 -G ecc256 -c parent.ctx\n" +
		"tpm2_create -Q -C parent.ctx -G rsa2048:null:null -u u -r r -c key.ctx -a 'fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign'\n" +
		"tpm2_evictcontrol -Q -C o -c key.ctx 0x81000100")
	spoilt := new(atomic.Int32)
	between := tap(t, p, func([]byte) {}, func(command, response []byte) {
		if code(command) == tpm2.TPMCCSign {
			spoilt.Add(1)
			response[len(response)/2] ^= 1
		}
	})
	k, err := Open(t.Context(), Config{Device: between, File: p.Read("key.pem"), Secret: device.NewSecret("")})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := sign(k); err != nil {
			t.Error(err)
		}
	}
	k.Close()
	if n := spoilt.Load(); n != 1 {
		t.Errorf("%d signatures by the TPM's own padding, want the one that shows its salt", n)
	}
	_, err = Open(t.Context(), Config{Device: between, Handle: 0x81000100, Secret: device.NewSecret("")})
	if err == nil || !strings.Contains(err.Error(), "longer salt than the 32 bytes") {
		t.Errorf("a key that cannot do raw RSA: %v", err)
	}
	// By itself swtpm has the right salt.
	if k = open(t, p, Config{Handle: 0x81000100}); sign(k) != nil {
		t.Error(sign(k))
	}
	k.Close()
}

// A script answers each command with the next of its answers, and then no more.
type script struct{ answers []byte }

func (s *script) Write(b []byte) (int, error) { return len(b), nil }
func (s *script) Close() error                { return nil }
func (s *script) Read(b []byte) (int, error) {
	n := copy(b, s.answers)
	if n > headerSize {
		n = min(n, max(headerSize, int(binary.BigEndian.Uint32(s.answers[2:]))))
	}
	s.answers = s.answers[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// FuzzAnswers has somebody on the bus answer in the TPM's place: nothing that he says makes a signature that is none, or more than
// an error.
func FuzzAnswers(f *testing.F) {
	for _, name := range []string{"file", "handle"} {
		answers, err := os.ReadFile(filepath.Join("testdata", "answers-"+name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(answers, name == "file")
	}
	file, err := os.ReadFile(filepath.Join("testdata", "key.pem"))
	if err != nil {
		f.Fatal(err)
	}
	w, err := parseFile(file)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, answers []byte, fromFile bool) {
		k, err := device.Open(t.Context(), func() (device.Opened, error) {
			bus := &wire{rwc: &script{answers: answers}}
			k := &key{bus: bus, wire: bus, secret: device.NewSecret(""), handle: 0x81000100}
			of := w
			if !fromFile {
				of = nil
			} else {
				k.handle = 0
			}
			return k, k.open(of)
		})
		if err == nil {
			sign(k) // which says so, if it is none
			k.Close()
		}
	})
}

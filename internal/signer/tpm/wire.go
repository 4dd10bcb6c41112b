package tpm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const (
	headerSize  = 10
	maxResponse = 4096
	// emulatorPatience is how long a TPM behind a socket may take. The kernel has bounds of its own for one that is a device.
	emulatorPatience = 2 * time.Minute
)

// A wire carries commands to a TPM, and its responses.
type wire struct {
	rwc  io.ReadWriteCloser
	conn net.Conn // what rwc is, where it is a socket
}

// connect opens a TPM: a device of the kernel's, or the socket of an emulator.
func connect(path string) (*wire, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("there is no TPM at %s: switch it on in the firmware's setup, load its driver, or name it by --device",
			path)
	case err != nil:
		return nil, fmt.Errorf("the TPM: %w", err)
	case info.Mode()&os.ModeSocket != 0:
		conn, err := net.Dial("unix", path)
		if err != nil {
			return nil, fmt.Errorf("the TPM: %w: see whether its emulator runs", err)
		}
		return &wire{rwc: conn, conn: conn}, nil
	case info.Mode()&os.ModeCharDevice == 0:
		return nil, fmt.Errorf("%s is neither the device of a TPM nor the socket of an emulator: name the right one by --device", path)
	}
	// Blocking, as by the poller of package os it would not be: a driver's answer is there once the write has returned.
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return nil, fmt.Errorf("%s: %w: let uid %d open it, by its group (tss), and by DeviceAllow= of the unit", path, err, os.Geteuid())
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("%s: %w: another program has it; /dev/tpmrm0 is the one that several may open", path, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &wire{rwc: os.NewFile(uintptr(fd), path)}, nil
}

// Send is transport.TPM's. After an error the wire is good for nothing.
func (w *wire) Send(command []byte) ([]byte, error) {
	if w.conn != nil {
		w.conn.SetDeadline(time.Now().Add(emulatorPatience))
	}
	if _, err := w.rwc.Write(command); err != nil {
		return nil, fmt.Errorf("the TPM is not reached: %w", err)
	}
	response := make([]byte, maxResponse)
	for n := 0; ; {
		more, err := w.rwc.Read(response[n:])
		n += more
		if n >= headerSize {
			size := int(binary.BigEndian.Uint32(response[2:]))
			if size < headerSize || size > maxResponse || n > size {
				return nil, errors.New("the TPM's answer has a wrong length: see whether it is one")
			}
			if n == size {
				return response[:n], nil
			}
		}
		if err == nil && more == 0 {
			err = io.ErrNoProgress
		}
		if err != nil {
			return nil, fmt.Errorf("the TPM does not answer: %w", err)
		}
	}
}

func (w *wire) Close() error { return w.rwc.Close() }

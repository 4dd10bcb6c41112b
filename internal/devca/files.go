package devca

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Write makes a CA, and in dir ca.pem with its certificate and HOST.pem with key and certificate of each host, whose
// certificate has its addresses in ips as well. It prints the files' names, and writes over none.
func Write(w io.Writer, dir string, hosts []string, ips map[string][]net.IP) error {
	made := time.Now().UTC().Format(time.DateTime)
	ca, err := New("shared-altsd throwaway CA " + made)
	if err != nil {
		return err
	}
	type file struct {
		name string
		data []byte
		mode fs.FileMode
	}
	files := []file{{"ca.pem", ca.PEM(), 0o644}}
	for _, host := range hosts {
		issued, err := ca.Issue(host, ips[host]...)
		if err != nil {
			return err
		}
		files = append(files, file{host + ".pem", issued.PEM(), 0o600})
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// All or none: a mixture of two CAs would be hard to find out about later.
	for _, f := range files {
		if _, err := os.Lstat(filepath.Join(dir, f.name)); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is there already, and nothing was written: remove it, or give another DIR",
				filepath.Join(dir, f.name))
		}
	}
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := WriteNew(path, f.data, f.mode); err != nil {
			return err
		}
		fmt.Fprintln(w, path)
	}
	return nil
}

// WriteNew makes a file with exactly that mode, and never writes over one.
func WriteNew(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Chmod(mode), f.Close())
}

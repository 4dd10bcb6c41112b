package pkcs11

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"
)

const (
	scheme = "pkcs11:"
	maxURI = 4096
)

// A URI names a private key of a token, as RFC 7512 has it. What is empty is not asked for.
type URI struct {
	Token, Manufacturer, Serial, Model string
	Slot                               *uint
	Object                             string
	ID                                 []byte
	// Module is the path of the vendor's module.
	Module string
	// PINSource is the path of the file with the PIN.
	PINSource string
}

// IsURI reports whether a key is named by a URI of this kind.
func IsURI(s string) bool { return strings.HasPrefix(strings.ToLower(s), scheme) }

// ParseURI reads a URI. One that names anything that is not understood here is refused, since it could mean another key.
// Errors do not repeat the URI, which may hold a PIN.
func ParseURI(s string) (*URI, error) {
	switch {
	case !IsURI(s):
		return nil, errors.New("it is none that begins with pkcs11: and names a key")
	case len(s) > maxURI:
		return nil, fmt.Errorf("it has more than %d bytes", maxURI)
	}
	where, query, asked := strings.Cut(s[len(scheme):], "?")
	u := new(URI)
	if err := each(where, ";", u.setPath); err != nil {
		return nil, err
	}
	if asked {
		if err := each(query, "&", u.setQuery); err != nil {
			return nil, err
		}
	}
	switch {
	case u.Object == "" && u.ID == nil:
		return nil, errors.New("it names no key: add object=LABEL or id=%XX, as 'pkcs11-tool --list-objects' shows them")
	case u.Module == "":
		return nil, errors.New("it does not say which vendor's module to use: add ?module-path=/PATH/OF/MODULE.so")
	}
	return u, nil
}

// each has set called with each attribute of a list, decoded.
func each(list, separator string, set func(name, value string) error) error {
	if list == "" {
		return nil
	}
	seen := map[string]bool{}
	for _, attribute := range strings.Split(list, separator) {
		name, encoded, ok := strings.Cut(attribute, "=")
		if !ok || !plainName(name) {
			return fmt.Errorf("part %d of it is not NAME=VALUE", len(seen)+1)
		}
		if seen[name] {
			return fmt.Errorf("it has %s twice", name)
		}
		seen[name] = true
		value, err := decode(encoded)
		if err == nil {
			err = set(name, value)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// plainName reports whether an attribute's name can be shown in an error.
func plainName(s string) bool {
	for _, c := range s {
		if c != '-' && (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return s != "" && len(s) <= 40
}

func (u *URI) setPath(name, value string) (err error) {
	texts := map[string]*string{"token": &u.Token, "manufacturer": &u.Manufacturer, "serial": &u.Serial, "model": &u.Model,
		"object": &u.Object}
	switch {
	case value == "":
		return errors.New("it is empty: leave it out")
	case name == "id":
		u.ID = []byte(value)
	case name == "slot-id":
		n, err := strconv.ParseUint(value, 10, 32)
		if err != nil {
			return errors.New("it is not a number")
		}
		slot := uint(n)
		u.Slot = &slot
	case name == "type":
		if value != "private" {
			return errors.New("it is not private, as that of the machine's key is")
		}
	case name == "pin-value":
		return errPINValue
	case texts[name] == nil:
		return errors.New("it is not understood here: leave it out, and name the token by token, manufacturer, model, serial or " +
			"slot-id and the key by object or id")
	case !utf8.ValidString(value) || strings.ContainsRune(value, 0):
		return errors.New("it is not text in UTF-8")
	default:
		*texts[name] = value
	}
	return nil
}

// errPINValue is the cure for a PIN where everybody sees it.
var errPINValue = errors.New("a PIN in a URI is shown by ps, logs and unit files: put it into a file that the signer alone can " +
	"read, name that by pin-source=file:/PATH or --pin-file, and think of a new PIN")

func (u *URI) setQuery(name, value string) error {
	switch name {
	case "module-path":
		// The module is run in this process: what is not named whole could be found elsewhere.
		if !path.IsAbs(value) || strings.ContainsRune(value, 0) {
			return errors.New("it is not an absolute path")
		}
		u.Module = value
	case "pin-source":
		u.PINSource = strings.TrimPrefix(value, "file:")
		u.PINSource = strings.TrimPrefix(u.PINSource, "//") // file:///PATH
		if !path.IsAbs(u.PINSource) || strings.ContainsRune(value, 0) {
			return errors.New("it is not the absolute path of a file, as /PATH or file:/PATH; a command is not run")
		}
	case "pin-value":
		return errPINValue
	case "module-name":
		return errors.New("a module is not searched for: give module-path=/PATH/OF/MODULE.so in its place")
	default:
		return errors.New("it is not understood here: leave it out")
	}
	return nil
}

// decode takes the percent-encoding away. What RFC 7512 does not allow as it is, it refuses: blanks, quotes and the like.
func decode(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '%':
			if i+2 >= len(s) {
				return "", errors.New("a % has no two digits behind it")
			}
			x, err := hex.DecodeString(s[i+1 : i+3])
			if err != nil {
				return "", errors.New("a % has no two digits behind it")
			}
			b.WriteByte(x[0])
			i += 2
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~:[]@!$'()*+,=/?|", c) >= 0:
			b.WriteByte(c)
		default:
			return "", fmt.Errorf("a character of it has to be written as %%%02X", c)
		}
	}
	return b.String(), nil
}

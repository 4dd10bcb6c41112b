package altscreds

import (
	"fmt"
	"strings"

	"github.com/shared-altsd/shared-altsd/internal/names"
)

// The application protocol altsd-tcp/1 (docs/spec/protocol.md, section 9): bytes with an authenticated end.
const (
	serviceFamily = names.ServiceFamily
	servicePrefix = names.ServicePrefix
	maxService    = 52 // bytes of a service's name, so that a protocol's name has at most 64
)

// ServiceProtocol returns the name of the application protocol altsd-tcp/1 of a service, for ApplicationProtocols. Its
// connections carry any bytes, and their ends are authenticated: Read returns io.EOF only after the peer's CloseWrite.
// Both ends name the same service, 1 to 52 bytes of a-z, 0-9, ".", "_" and "-", so that one of an account's cannot be
// put in the place of another.
func ServiceProtocol(service string) (string, error) {
	if n := len(service); n < 1 || n > maxService || strings.Trim(service, "abcdefghijklmnopqrstuvwxyz0123456789._-") != "" {
		return "", fmt.Errorf("altscreds: the service %q is not 1 to %d bytes of a-z, 0-9, \".\", \"_\" and \"-\"", service,
			maxService)
	}
	return servicePrefix + service, nil
}

// IsServiceProtocol reports whether an application protocol is altsd-tcp/1 of some service.
func IsServiceProtocol(protocol string) bool { return strings.HasPrefix(protocol, servicePrefix) }

// checkService returns an error for a name of altsd-tcp's that this version does not speak.
func checkService(protocol string) error {
	if !strings.HasPrefix(protocol, serviceFamily) {
		return nil
	}
	service, ok := strings.CutPrefix(protocol, servicePrefix)
	if !ok {
		return fmt.Errorf("altscreds: application protocol %q: only version 1 of %s is known; name it by ServiceProtocol",
			protocol, strings.TrimSuffix(serviceFamily, "/"))
	}
	_, err := ServiceProtocol(service)
	return err
}

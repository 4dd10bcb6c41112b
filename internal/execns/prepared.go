package execns

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
)

// preparedAddress checks what Config.Prepared promises and returns the relay's address.
func preparedAddress() (net.IP, error) {
	name, err := os.ReadFile(productNameFile)
	if got := strings.TrimSpace(string(name)); err == nil && got != productName {
		err = fmt.Errorf("it reads %q", got)
	}
	if err != nil {
		return nil, &Error{NotPrepared, fmt.Errorf("%s does not read %q (%w): mount a file with that text over it",
			productNameFile, productName, err)}
	}
	if err := preparedResolver(); err != nil {
		return nil, err
	}
	hosts, err := os.ReadFile(hostsFile)
	if err != nil {
		return nil, err
	}
	var addr net.IP
	if addrs := hostsAddresses(hosts, handshakerName); len(addrs) > 0 {
		addr = net.ParseIP(addrs[0])
	}
	want := []string{addr.String(), "::ffff:" + addr.String()}
	for _, n := range []string{handshakerName, handshakerName + "."} {
		if !addr.IsLoopback() || addr.To4() == nil || !slices.Equal(hostsAddresses(hosts, n), want) {
			return nil, &Error{NotPrepared, fmt.Errorf("%s does not have for %s one address of 127.0.0.0/8, and after it the "+
				"same as ::ffff:127.N.N.N: add two such lines, each with the name with and without a dot at its end", hostsFile, n)}
		}
	}
	return addr, nil
}

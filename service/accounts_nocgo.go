//go:build !cgo || osusergo

package service

import "os"

// newUserSource asks NSS through a helper of the system, since this build has no C library of its own.
func newUserSource() userSource {
	// For this process's own uid, package os/user believes the environment where /etc/passwd has no line for it.
	os.Unsetenv("USER")
	return helperUsers{varlink: userdbSocket, getent: "getent"}
}

// AccountSource says which user database this build reads.
const AccountSource = "systemd-userdbd where it runs, else getent, else /etc/passwd"

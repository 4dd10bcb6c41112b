//go:build cgo && !osusergo

package service

// newUserSource asks the system's NSS, in this process, by way of the C library.
func newUserSource() userSource { return osUsers{} }

// AccountSource says which user database this build reads.
const AccountSource = "NSS (nsswitch.conf), by the C library"

// Package pkcs11 has the machine's key in a PKCS #11 token: a smart card, a USB token, an HSM, by the module of its vendor, which
// is C. So this package alone needs cgo; without it Open says so.
package pkcs11

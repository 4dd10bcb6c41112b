// Package signer is the machine's key outside of the daemon: the protocol by which the daemon has statements signed
// (docs/spec/companions.md, section 3), the signer that has the key, and the daemon's end.
//
// The signer signs statements of this machine's daemon and nothing else. It is told fields and builds the signed bytes
// itself, so that whoever takes the daemon over has no TLS handshake, no certificate, and no statement of next year signed.
package signer

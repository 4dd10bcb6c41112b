// Package forward has what connect and listen have in common: a server of connections, and the bytes
// between a local program and the peer.
package forward

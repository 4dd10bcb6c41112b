// Package httpfwd is HTTP between a proved peer and a program of this machine that knows nothing of ALTS: `listen --http`,
// by which the program learns in headers who calls, and `connect --http`, by which a browser is not led to lend its user's
// identity.
//
// Requests pass through the standard library's reverse proxy, HTTP/1.1 as such and HTTP/2 by prior knowledge as such, so
// that what the program reads was written here and not by the peer.
package httpfwd

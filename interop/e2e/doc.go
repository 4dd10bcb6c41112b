// Package e2e holds end-to-end tests and nothing else: the real program as the daemons of several machines, stock
// grpc-go ALTS credentials in processes of several accounts, and peers that break the protocol on purpose. Its table
// of refusals is also the source of docs/refusals.md.
//
// The accounts are made for the test: the daemons see an /etc/passwd of their own, in a mount namespace of their own,
// so that the machine's user database is not touched. That, and running programs as other accounts, needs root.
package e2e

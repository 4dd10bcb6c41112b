// Package resolve asks a validating resolver of this machine what DNS says of a machine, for a daemon that has no network: the
// protocol between the two (message.go), the question and what is believed of the answer, and the companion that runs it.
//
// Nothing is validated here. The resolver validates, and says so by the AD bit of its answer; that is believed of a resolver that
// an administrator has named, at an address of loopback and a port that only root could take, and of nobody else.
package resolve

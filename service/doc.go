// Package service is the local side of the daemon: gRPC's HandshakerService (grpc.gcp.HandshakerService/DoHandshake),
// by which the ALTS credentials of gRPC libraries have their handshakes done, on a UNIX socket.
//
// # One handshake
//
// An application opens a stream, sends a start request, and relays the peer's bytes; each request gets exactly one
// response, which says how many of the request's bytes were taken and what to send to the peer. The last response holds
// the result, and the stream ends right after it. An application that can hands over its connected socket instead, with
// a start request: the daemon carries the bytes itself and answers once. From accept to key the way of a handshake is
//
//	connection.go  a connection, whose first byte says which of the two it is for
//	caller.go      who holds it: SO_PEERCRED, once; whether he may
//	accounts.go    the account that a uid has, from the user database (usersource.go) or a cache; userfiles.go says how
//	               a lookup queues
//	vacancies.go   the account that a socket gives out (socket.go), which that database must not have
//	share.go       whose part of the daemon something counts as
//
// then by a stream of gRPC
//
//	grpc.go        the gRPC server (package localgrpc): what it serves, and to whom connections are counted
//	stream.go      the stream: a request, the session's response to it, in the end the status of the call
//
// or by a socket that is handed over
//
//	handover.go    the start request, the peer's bytes between the socket and the session, the answer
//
// and in both
//
//	session.go     one handshake: one request to one response (step); it knows no transport
//	identity.go    which account the caller is, or whom his socket makes of him
//	start.go       the start request: each field is honoured, relayed or refused
//	target.go      whom a client is content with, as the check that noiseproto makes before it sends message 3
//	dns.go         the wait for what DNS says of the peer's machine, where that vouches for it
//	admit.go       what a session takes up of its account's share: a stream, a turn, and
//	gate.go        a place among the handshakes under way, and limits.go what else an account may hold
//	budget.go      what work and junk cost an account of the processor (package fair); while none is done, key pairs
//	               are made for handshakes to come (package keysahead)
//	result.go      what the application is told if all is well, the key among it
//	ending.go      how a session ends, by whatever: what is given back, and what is told to whom
//	failure.go     what it is told if not, in the form that its library can show
//	logging.go     the line in the log, and loglimit.go how many an account gets
//
// A connection that stands is judged again: watch.go is the stream by which an application presents its connections (package
// standing has the record), watchbounds.go how many may be watched, standing.go what judges them, rejudge.go when, standingdns.go what DNS says of them since.
//
// server.go has the configuration, the start and the stop of it all, socket.go the places where it is reached. The
// section of docs/spec/audit.md on one handshake names the functions on this way, and those of the packages below.
//
// # Words
//
// An application is a client or a server, as gRPC has it. The part that this machine has in the handshake is that of the
// initiator for a client and of the responder for a server (Role): so the log, the metrics, status and noiseproto call
// it. A place is one among the handshakes under way. A limit bounds what is held: perAccount what one account (a
// share) may hold, inAll what all may together.
//
// # The identity of the caller
//
// is the account of the effective uid at connect, or, at a socket that gives out an account, that one, which nobody in the
// user database may have. Its name must lead back to the same uid. The overflow uid, 65534,
// 2^32-1 and uids without a name are refused. The user database is read as AccountSource says; it is asked with a
// deadline, once for concurrent callers, and cached for 30 seconds, a name for 30 more while it is asked for again
// (refusals for 5).
//
// # Time
//
// A client's handshake may take Config.HandshakeTimeout once it has a place, for which it waits as long at most; a
// server's from the peer's first byte on, and anew once it has a place, which it takes when message 1 is whole. A
// gRPC server opens its stream before anybody has said anything, so that a stream without bytes of the peer's costs
// neither time nor a place among the handshakes. A responder that refuses sends its peer a status frame in
// a good response, waits a second for its application to see the peer hang up, and then fails the stream. One whose
// time is over does the same if within a second there is a request to answer; onto a socket that was handed over it
// writes at once.
//
// # Refusals
//
// The text of a failure names who refused (this machine's daemon, or the peer's), the cause and the cure, the code of
// docs/spec/protocol.md, section 3.2 (or bad_request, peer_closed, cancelled, which have no code there), and the handshake's
// ID. Who acts on the reason has it as fields: altspb.Refusal is a detail of the status that ends a call, and stands in
// the answer to a socket that was handed over. The status codes of gRPC: UNAUTHENTICATED where the peer's proof fails,
// PERMISSION_DENIED where somebody is who he says but may not, or where the peer did not accept us, FAILED_PRECONDITION
// where the two applications have nothing in common, INVALID_ARGUMENT for a request that breaks the handshaker
// protocol, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED, UNAVAILABLE if either side goes away, INTERNAL.
//
// Unknown protobuf fields of newer libraries are let pass with a line in the log. Unknown enum numbers and identities
// of unknown kinds are refused.
package service

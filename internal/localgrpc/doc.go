// Package localgrpc is a gRPC server over HTTP/2 for local sockets, small and bounded by construction: whatever frames
// a peer sends, a connection holds no more than is said here, and each frame is charged before it is worked on.
//
// # Bounds
//
// All windows are fixed, and given back only for what was answered or dropped. What one connection can make the process
// hold, in KiB:
//
//	read buffers, while a frame is incomplete (10 s at most)
//	or waits until the account has what it costs              16 + 16  readSize, maxFrame
//	headers under way, and hpack's table                      48 + 16  maxHeaderList twice, maxBlock; tableSize as hpack counts
//	answers not taken by the socket                          32 + 128  maxOut, and the room that it grew by
//	requests and answers of all streams                     3 x 2048   maxHeld, in buffers that grow; 1 MiB of it requests
//	256 streams                                              256 x 16  maxStreams: state, session, the status that ends it
//	goroutine                                                     64   its stack
//	in all                                                  < 11 MiB
//
// beside a goroutine for each call of a generated service and for each step that waits, which count as streams. An
// account's streams, and the requests and answers that they hold, are counted by Account for all of its connections
// together; what is left for each of them is less than 300 KiB.
//
// # Design
//
// A goroutine a connection reads, decodes and answers; all that others do to a connection (timers, steps that waited,
// generated services) they do under its lock. Nothing waits under the lock: the socket is written without blocking, and
// what it does not take waits for a goroutine that writes until a deadline. While that is so, nothing is read.
package localgrpc

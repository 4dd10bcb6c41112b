// Package noiseproto is the protocol that two shared-altsd daemons speak with each other, version 1: bytes in, bytes
// out. It opens no connection, reads no clock, starts no goroutine and logs nothing. The norm is docs/spec/protocol.md;
// this text says what is checked, and what each check defends against.
//
// The formats are in docs/spec/protocol.md alone: the Noise pattern, prologue and psk in section 2, frames and status in
// section 3, payloads in section 4, offer and choice in section 6, key data and handshake ID in sections 7.3 and 7.4.
// The identity in payloads 2 and 3 is package certbind's matter: it ties the static key that Noise authenticated to
// account@machine.
//
// # States
//
// A Handshake is a state machine (docs/spec/protocol.md, sections 7.1 and 7.2); in each state one frame is expected, besides
// a refusing status, and any error is final.
//
//	initiator   start  --Start-->     write message 1                                      --> wait-2
//	            wait-2 --message 2--> read, decapsulate, set psk, Verify, Authorize,
//	                                  choose, write message 3, Split                       --> wait-status
//	            wait-status --0-->    result                                               --> done
//	responder   wait-1 --message 1--> read, check key, encapsulate, write message 2,
//	                                  set psk                                              --> wait-3
//	            wait-3 --message 3--> read, Verify, Authorize, check choice, Split,
//	                                  write status 0, result                               --> done
//
// Where Verify returns an *certbind.Unresolved, Feed stops there, without a word to the peer, and Resume goes on with Verify.
//
// # Checks, and what each defends against
//
//   - Magic byte by byte, then version, type, length, before any of a body is stored or room is made for it: memory
//     and processor time of a stranger's connection are bounded by what it sent, and by 24 KiB. To bytes that are not
//     ours nothing is answered, so that the daemon is no oracle and no reflector; our own side is told what they look
//     like. flynn/noise has no bounds on handshake messages of its own.
//   - Exactly one frame type in each state: a reordered, repeated or reflected frame ends the handshake on its
//     header. A message carried into another handshake does not decrypt, for the transcript hash is its additional
//     data.
//   - The version of the first frame holds for all, and is in the prologue: changing it on the way is a decryption
//     failure, so there is no downgrade. Nothing else of the cryptography is negotiable.
//   - A DH result of all zero bytes is refused (package x25519 does it): a peer with a key of low order would know the
//     result, and could make two handshakes agree.
//   - The encapsulation key's length and modulus (FIPS 203, section 7.2; package mlkem768 does it).
//   - A wrong ciphertext is no error of ML-KEM but gives another psk: message 3 does not decrypt.
//   - The psk is set before the state in which message 3 is read is entered, because flynn/noise would mix an empty
//     psk where none is set and accept a message 3 that did the same: without this the handshake would still have the
//     security of X25519, but not that against recorded traffic and a later quantum computer.
//   - After an error the Noise state is dropped: after a failed read or write flynn/noise can go on in ways that are
//     not safe. The same error comes again from every later call.
//   - The peer's static key is read only after ReadMessage succeeded: before, nobody has authenticated it.
//   - The identity is verified against that very key, so a captured identity is worthless without its static key.
//   - The initiator writes message 3 only after all of message 2 has passed, target included: a wrong responder never
//     learns who called. The responder's identity can be learned by anyone who can connect.
//   - While the verifier waits for what only DNS can say, nothing is written, given out or taken: bytes that are fed then end
//     the handshake, and what it goes on with is dropped with everything else when it ends.
//   - Each thing that the initiator chose must have been offered; RPC versions are checked on both sides. Offer and
//     choice are authenticated by the handshake, so nobody between the two can narrow them.
//   - The initiator's result is withheld until status 0, and the responder's until status 0 is written.
//   - Bytes after the last frame are never taken: they belong to the record protocol.
//
// # Keys and memory
//
// Ephemeral X25519 and ML-KEM keys serve one handshake. Config.Keys may have made them before, by the bounds of rule 46
// (internal/keysahead); what a handshake was given is its own. Config.Static is the handshake's own copy of the static key,
// so that rotation cannot wipe it in use. When a handshake ends, in any way, the static private key, the ephemeral
// private key and the shared secret as this package holds them are overwritten, and the references to the
// decapsulation key and the Noise state are dropped. What is not given: the ML-KEM library holds copies that
// cannot be overwritten, flynn/noise holds the chaining key, DH results and a copy of the psk, and the garbage
// collector frees all of these without wiping them. Result belongs to the caller, who can call Wipe.
//
// Nothing secret is compared by this package but our own static key with zeros, in constant time, to see that it was
// not wiped: authentication is AES-GCM's and the signature's.
//
// # Errors
//
// All errors are *reason.Error: Code is what the peer is told, Detail what our own side reads. ByPeer is set if the
// peer refused. No error holds key material. Of the peer's bytes an error holds at most the first four, in
// hexadecimal, if they are of an unknown protocol, and, once the peer is verified, the quoted names of protocols,
// which are printable ASCII.
package noiseproto

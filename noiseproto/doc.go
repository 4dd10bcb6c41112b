// Package noiseproto is the protocol that two shared-altsd daemons speak with each other, version 1: bytes in, bytes
// out. It opens no connection, reads no clock, starts no goroutine and logs nothing. The norm is docs/protocol.md;
// this text holds what an auditor needs to read the package alone.
//
// # The handshake
//
// In the notation of the Noise Protocol Framework, revision 34:
//
//	Noise_XXpsk3_25519_AESGCM_SHA256
//	  -> e                                   payload 1
//	  <- e, ee, s, es                        payload 2
//	  -> s, se, psk                          payload 3
//	prologue = "shared-altsd" || 0x01        13 bytes; the last is the version
//	psk      = ML-KEM-768 shared secret      32 bytes, as FIPS 203 gives it
//
// The initiator's encapsulation key travels in payload 1, the responder's ciphertext in payload 2. The pattern has a
// psk, so each e token also calls MixKey(e), and payload 1 is encrypted with a key that anyone can compute: it has
// integrity within the transcript, and no secrecy. After message 3 Split gives k1 (initiator to responder) and k2;
// the result is
//
//	key_data = k1 || k2                      64 bytes, the same on both sides
//
// for the ALTS record protocol. The CipherStates of Split never encrypt.
//
// # Frames
//
// Everything on the wire is a frame; integers are big-endian:
//
//	magic "salt" (4) || version (1) || type (1) || length of the body (2) || body
//
//	type 1  message 1   1232 bytes          e (32) || payload 1 (1184) || tag (16)
//	type 2  message 2   1190..24576 bytes   e (32) || s (32) || tag (16) || payload 2 || tag (16)
//	type 3  message 3   70..24576 bytes     s (32) || tag (16) || payload 3 || tag (16)
//	type 4  status      4 bytes             code (2) || lowest version (1) || highest version (1)
//
// The order is 1, 2, 3, then a status with code 0 by the responder. A status with another code may come in the place of
// any frame and ends the handshake; it is taken in any version. The status is not authenticated: security does not rest
// on it, it tells the refused side why. What it can do, cutting the connection can do as well.
//
// # Payloads
//
//	payload 1   encapsulation key 1184
//	payload 2   ciphertext 1088 || identity opaque16<1..21504> || offer opaque16<1..2048>
//	payload 3   identity opaque16<1..21504> || choice opaque16<1..2048>
//
//	offer       application protocols   u8 count 1..16, each opaque8<1..64> of bytes 0x21..0x7e, none twice
//	            record protocols        the same
//	            RPC versions            u32 max major, max minor, min major, min minor
//	            maximum frame size      u32
//	            transport protocols     u8 count 0..16, else as above
//	choice      application protocol    opaque8<1..64>
//	            record protocol         opaque8<1..64>
//	            RPC versions            4 times u32, as above
//	            maximum frame size      u32
//	            transport protocol      opaque8<0..64>
//
// opaque8 and opaque16 are a length of 1 or 2 bytes and that many bytes. Nothing may follow a last field. The
// identity is package certbind's matter: it ties the static key that Noise authenticated to account@machine.
//
// # States
//
// A Handshake is a state machine; in each state one frame is expected (besides a refusing status), and any error is
// final.
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
//   - A DH result of all zero bytes is refused (crypto/ecdh does it): a peer with a key of low order would know the
//     result, and could make two handshakes agree.
//   - The encapsulation key's length and modulus (FIPS 203, section 7.2; crypto/mlkem does it).
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
//   - Each thing that the initiator chose must have been offered; RPC versions are checked on both sides. Offer and
//     choice are authenticated by the handshake, so nobody between the two can narrow them.
//   - The initiator's result is withheld until status 0, and the responder's until status 0 is written.
//   - Bytes after the last frame are never taken: they belong to the record protocol.
//
// # Keys and memory
//
// Ephemeral X25519 and ML-KEM keys serve one handshake. Config.Static is the handshake's own copy of the static key,
// so that rotation cannot wipe it in use. When a handshake ends, in any way, the static private key, the ephemeral
// private key and the shared secret as this package holds them are overwritten, and the references to the
// decapsulation key and the Noise state are dropped. What Go does not give: crypto/ecdh and crypto/mlkem hold copies
// that cannot be overwritten, flynn/noise holds the chaining key, DH results and a copy of the psk, and the garbage
// collector frees all of these without wiping them. Result belongs to the caller, who can call Wipe.
//
// Nothing secret is compared by this package: authentication is AES-GCM's and the signature's.
//
// # Errors
//
// All errors are *reason.Error: Code is what the peer is told, Detail what our own side reads. ByPeer is set if the
// peer refused. No error holds key material. Of the peer's bytes an error holds at most the first four, in
// hexadecimal, if they are of an unknown protocol, and, once the peer is verified, the quoted names of protocols,
// which are printable ASCII.
package noiseproto

// Package certbind binds a Noise static key and a local account to a machine's X.509 certificate, and verifies such a
// binding made by another machine. It is sections 5 and 5.1 to 5.6 of docs/spec/protocol.md, which alone have the formats;
// it knows no Noise beyond the 32 bytes of an X25519 public key.
//
// It opens no connection, and starts goroutines only to sign: what a reload or rotation needs, and by a key outside of this
// process (StatementSigner). Keys, certificates and lists come to it as bytes; the one thing that
// it reads from disk, by crypto/x509, is the system's pool of CAs, where that is trusted for some names. It reads the
// clock, unless it is given another, and tells a logger, if it is given one, what it signs and whom it verifies.
//
// # What is bound to what
//
//	CA certificate (trusted here, perhaps for some names only)
//	  | signs (X.509, RFC 5280)
//	leaf certificate: proves the machine's name (DNS SAN) and the machine's key
//	  | signs
//	statement: static key, hash of the leaf, machine, account, attributes, window of hours
//	  | names
//	static key: authenticated by Noise in the handshake at hand
//
// So a handshake that Noise has authenticated with that static key, and whose statement verifies, is with
// account@machine, as far as the machine and the CA are honest. Root on a machine can speak for every account there,
// and for none elsewhere.
//
// # The signature
//
// What the leaf's key signs begins with 64 spaces and a context string of our own (docs/spec/protocol.md, section 5.1),
// which keeps the signature apart from all others that a host key makes. TLS 1.3 uses the same 64 spaces with context
// strings of its own; TLS 1.2 signs two nonces and parameters, whose first 32 bytes may be chosen by a peer but not the
// next 32 as well. The key fixes the scheme, and nothing is negotiated.
//
// # Verification
//
// Machine.Verify refuses at the first check that fails, in this order, with a *reason.Error whose code the peer is
// told. Everything cheap comes first; no signature is verified before step 6, and the leaf's key is not used before
// step 7.
//
//  1. Format: each bound of sections 5, 5.1 and 5.4, nothing after a last field, one encoding of each statement.
//     Defends the memory and every later step. (Malformed; StatementInvalid)
//  2. Bounds on certificates: each parses; keys are P-256, P-384, Ed25519, or RSA with the exponent 65537 and 2048 to
//     4096 bits (leaf) or 8192 (above); signatures are with SHA-2 by RSA or ECDSA, or Ed25519. Defends the processor:
//     one RSA signature with a huge modulus takes seconds, and anybody who can connect can send one.
//     (CertificateUnacceptable)
//  3. Static key and leaf are those of the statement. Defends against a replay of a captured identity, which is not
//     secret: without the private static key it is worth nothing; and against a statement beside another certificate
//     of the same key. (StatementInvalid)
//  4. Window: now is in it, it is at most 24 hours long, and ends no later than the leaf. Bounds what a stolen static
//     key is good for. (StatementExpired; CertificateExpired or CertificateNotYetValid if that is the leaf's time)
//  5. Names: machine is valid and exactly one of the leaf's DNS SANs, where wildcards never match; account and
//     attributes are valid. Defends logs, user databases and those who compare names. (MachineNameMismatch,
//     AccountUnacceptable)
//  6. Chain: the leaf is no CA, does not have a trusted CA's key, has digitalSignature, and an extended key usage
//     that is absent or any, serverAuth or clientAuth, or if TrustConfig.RequireEKU is set, has that OID; so that
//     a CA, an e-mail or a code-signing certificate speaks for nobody. Then RFC 5280 by crypto/x509, with name
//     constraints, to a CA that is trusted for this machine name; then, path by path, intermediates' extended key
//     usage and revocation. One path that keeps every rule is enough. (UnknownCA, CertificateExpired,
//     CertificateNotYetValid, MachineNameMismatch, CertificateUnacceptable, CertificateRevoked, RevocationUnknown)
//  7. Signature of the statement. (StatementInvalid)
//
// # DNS in the place of CAs
//
// A CA of TrustConfig that is DANE gives names to DNS. The longest of all names that a machine is under, CAs' and DNS's,
// decides who vouches for it (Trust.UnderDNS), so that neither a CA nor DNS can stand in for the other; the same name for
// both, and a public suffix for DNS, are refused. Of such a machine steps 1 to 3 are as above. Then come the statement's
// own window, the names, where a common name does if there is no subject alternative name at all, that the key is no trust
// anchor's, and the statement's signature; not the leaf's time, its usages, its issuer or its chain. What is missing then is
// an Answer: Verify returns an *Unresolved, the caller has DNS asked, by whatever it trusts in that, and hands the answer to
// VerifyAnswered, which begins anew, by the trust of then. One record of usage 3 that matches is enough. A Peer by DNS has no
// CA, and its certificate speaks for no host but the machine.
//
// No error holds text of the peer's but a machine name that has passed step 5, and object identifiers as digits and dots
// of at most 64 bytes.
//
// # Revocation
//
// Lists are read when a Trust is made. A list is refused that does not parse; that has no nextUpdate; that has a
// critical extension that is unknown, in itself or in an entry; that is a delta, indirect, or for some reasons only; that
// is not signed with SHA-2 or Ed25519; or that has the name of a configured CA and not its signature. In a
// verification, each certificate of a path but the trust anchor is looked up in each list that its issuer's key has
// signed: the key counts, not the name, and not whether the issuer has cRLSign, since a list that is skipped would be
// a revocation unseen. A list may be for leaves, for CAs, or for certificates that name its place (Scope,
// CRLFile.Complete): where there are lists of an issuer, one has to be for the certificate at hand, and each that is for
// it, unless TrustConfig.CRLStaleOK, not past its nextUpdate; what any of them revokes is revoked in any case. A list
// from the future (thisUpdate after now) is used: its issuer has signed it, and a clock that is behind should not cut
// off every peer. Check warns of it.
//
// A list says what it says for ever, so that whoever can send one can send an old one. A Mark is how new the newest list
// of a CA and a Scope was (by number, else by thisUpdate), Trust.Behind tells which CAs of a trust have none as new, and
// by Trust.Demanding their chains fail. Who holds the marks, and how long, is the program's affair. A list that is more
// than 5 minutes ahead makes no Mark.
//
// # The cache
//
// Successes, and only these, are kept under the SHA-256 of the whole identity: at most 4096, and 256 for one leaf, or for
// one machine under DNS, oldest out first. A hit checks anew that the static key is the one that Noise authenticated now,
// and that the time is within everything used: statement, certificates of the path, revocation lists, DNS's answer. It parses no certificate and
// verifies no signature. A reload puts a new, empty cache in force with the new trust, so nothing found under another
// trust is used.
//
// # Attestation
//
// A Machine makes its static key in memory and never stores it. Machine.Attest hands out a snapshot of static key and
// identity that belong together, as a copy for one handshake, so that rotation and reload wipe the Machine's own copy
// and disturb no handshake. A statement begins 5 minutes before it is signed, lasts for MachineConfig.Window, ends no
// later than the leaf, and is signed anew after half of its life or when leaf, static key, account's attributes or the
// clock say so. One that ends with the leaf is used to its end, since the next one would end no later; so is the
// statement in hand if the key fails to sign. Statements are kept by account and attributes: at most 4096, and 16 of one
// account, longest unused out first.
//
// The key may be outside of this process: a StatementSigner is told a statement's fields and builds the signed bytes itself.
// What it returns is verified before it is used. No handshake of an account that has a statement waits for it: past half of
// its life a statement is made anew beside them. Where there is none, a handshake waits no longer than it may.
//
// A reload with the certificates that are in force touches neither static key nor statements. Where there are others, and
// when the static key is rotated, the statements of the last hour's accounts are signed first, while the old ones serve:
// with a key in slow hardware no handshake waits for a reload. That is bounded (MaxPreparation), and ends with the old
// certificate. A key that signs nothing is refused.
package certbind

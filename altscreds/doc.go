// Package altscreds gives Go programs ALTS, gRPC's mutual authentication by accounts, on ordinary machines. The local
// shared-altsd daemon does the handshakes; a program holds no keys and no certificates. Each end of a connection learns
// which account on which machine the other is, as "user@machine".
//
// # gRPC
//
// [NewClientCredentials] and [NewServerCredentials] are for grpc.WithTransportCredentials and grpc.Creds. A client
// names the accounts that it wants to reach in [ClientOptions.TargetAccounts]. Without them the local daemon only
// checks that the peer's machine has the name that was dialled, and on a shared machine anybody may listen.
//
// On the server [PeerFromContext] returns the caller; an [Authorizer] has interceptors that let in whom its rules name
// and nobody else. A server without one accepts every account of every machine that its daemon can verify. The
// functions of google.golang.org/grpc/credentials/alts, AuthInfoFromContext, AuthInfoFromPeer and
// ClientAuthorizationCheck, work unchanged. The peers may use any stock ALTS library.
//
// # Other connections
//
// [Dial], [Listen], [Client] and [Server] are for everything else that speaks over a [net.Conn], as those of crypto/tls
// are: [Conn] does its handshake at the first Read or Write, and [Conn.Peer] returns the other end. [Dialer] is
// for libraries that take a function to dial with, [ConnContext] for net/http servers. The two ends agree on an
// application protocol, which the options must name, so that two servers are not mistaken for one another.
//
// The record protocol, ALTSRP_GCM_AES128_REKEY, protects every byte in order and has no authenticated end: somebody on
// the network can cut a connection so that it looks closed by the peer. A protocol above it must tell where its messages
// end, as HTTP/2 does, and HTTP/1 with a length; or its name is one of [ServiceProtocol], under which ends are
// authenticated: Read returns io.EOF only after the peer's [Conn.CloseWrite], and a connection that is closed without it is
// an error for the peer.
//
// # Moving in
//
// With [ServerOptions.Mixed] a server takes TLS or plaintext beside ALTS on the same port, told apart by the first
// byte. Such peers have an [Unauthenticated] as AuthInfo, are counted, and are denied by an [Authorizer] unless a rule
// names their kind. When [Mixed.Counts] shows that all have moved, Mixed.Strict ends it.
//
// # Errors
//
// A handshake fails with a [*HandshakeError] or a [*NoDaemonError]. errors.Is tells them apart: [ErrNoDaemon],
// [ErrRefused] by this side, [ErrPeerRejected] by the other, [ErrTimeout]; [HandshakeError.Reason] has the code of
// docs/spec/protocol.md, [HandshakeError.HandshakeID] the ID in the logs of both daemons, and the text says what to do. With
// another ALTS handshaker service there is only the text. While the daemon is being restarted, handshakes wait for it
// up to 2 seconds. A context that ends, a deadline of the connection, and Close end a handshake at once.
//
// # Connections that are ended
//
// A connection that the local daemon would refuse by now, by a rule of its policy, a denial, a revocation list, or because a
// certificate or a CA has ended, is closed, within a second of the change: Read and Write return an [*EndedError], which
// gRPC shows in the status of the calls under way. A daemon that is away ends nothing; after its restart the connections are
// presented to it again. Connections that were made before the process changed its identity are watched no more.
//
// # The daemon
//
// The socket is [ClientOptions.Socket], else the environment's SHARED_ALTS_SOCKET (but not in setuid programs), else
// /run/shared-altsd/socket. The daemon is believed only if its socket is served by root, by the program's own account,
// or by the account in DaemonUID, and never by the overflow uid. A process has one connection to it, which is closed a
// minute after the last handshake and the last connection's end, and at the next handshake if the process has changed its
// effective uid, gid or groups since: what a program does after it dropped privileges is done without them. (Connections to peers that it made before
// keep their identity; so do the channels to the daemon of gRPC's own ALTS credentials.)
//
// The package works on Linux.
package altscreds

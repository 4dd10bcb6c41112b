package altscreds

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
)

// The kinds of peers that a server with Mixed tells apart.
const (
	// KindTLS is a peer that speaks TLS. It is not authenticated as an account, whatever certificate it has.
	KindTLS = "tls"
	// KindPlaintext is a peer that speaks neither ALTS nor TLS.
	KindPlaintext = "plaintext"

	kindALTS = "alts"
)

// Mixed lets a server take peers that do not speak ALTS yet, beside it on the same port, told apart by their first
// byte; so the peer has to speak first, as in HTTP, HTTP/2 and TLS. A plaintext protocol whose first byte is "s" is
// taken for ALTS. Connections of such peers have an Unauthenticated as AuthInfo, and an Authorizer denies them unless a
// rule names their kind. Fields are set before the server starts. One Mixed may serve several servers; it must not be
// copied.
type Mixed struct {
	// TLS is the configuration for peers that speak TLS; nil: they are refused.
	TLS *tls.Config
	// Plaintext lets in peers that speak neither TLS nor ALTS.
	Plaintext bool
	// Strict refuses everything but ALTS, whatever the other fields say: the last step of moving in.
	Strict bool
	// OnUnauthenticated, if set, is called at each peer that does not speak ALTS, accepted or not, so that the ones which
	// still have to move can be found. It must not block.
	OnUnauthenticated func(kind string, remote net.Addr, accepted bool)

	alts, tls, plaintext, refused atomic.Uint64
}

// MixedCounts are numbers of connections.
type MixedCounts struct {
	// ALTS, TLS and Plaintext were let in by their first byte, before any handshake; Refused were not.
	ALTS, TLS, Plaintext, Refused uint64
}

// Counts returns the numbers so far.
func (m *Mixed) Counts() MixedCounts {
	return MixedCounts{ALTS: m.alts.Load(), TLS: m.tls.Load(), Plaintext: m.plaintext.Load(), Refused: m.refused.Load()}
}

// Unauthenticated is the AuthInfo of a peer that a server with Mixed let in without ALTS.
type Unauthenticated struct {
	// Kind is KindTLS or KindPlaintext.
	Kind string
	// Inner is a credentials.TLSInfo for KindTLS, nil for KindPlaintext.
	Inner credentials.AuthInfo
}

// AuthType returns "unauthenticated" and the kind.
func (u Unauthenticated) AuthType() string { return "unauthenticated-" + u.Kind }

// GetCommonAuthInfo reports to grpc what the transport protects.
func (u Unauthenticated) GetCommonAuthInfo() credentials.CommonAuthInfo {
	if u.Kind == KindTLS {
		return credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}
	}
	return credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}
}

// classify reads the first byte and returns what the peer speaks, if that is let in.
func (m *Mixed) classify(raw net.Conn) (kind string, first []byte, err error) {
	if first, err = readByte(raw); err != nil {
		return "", nil, readError(err)
	}
	kind = kindOf(first[0])
	return kind, first, m.admit(kind, raw.RemoteAddr())
}

// kindOf returns what a peer speaks that begins with this byte.
func kindOf(first byte) string {
	switch first {
	case magic[0]:
		return kindALTS
	case 0x16: // a TLS record of type handshake
		return KindTLS
	}
	return KindPlaintext
}

// admit counts a peer, and returns an error if it is not let in.
func (m *Mixed) admit(kind string, remote net.Addr) error {
	count, allowed := &m.alts, true
	switch kind {
	case KindTLS:
		count, allowed = &m.tls, m.TLS != nil && !m.Strict
	case KindPlaintext:
		count, allowed = &m.plaintext, m.Plaintext && !m.Strict
	}
	if !allowed {
		count = &m.refused
	}
	count.Add(1)
	if kind != kindALTS && m.OnUnauthenticated != nil {
		m.OnUnauthenticated(kind, remote, allowed)
	}
	if allowed {
		return nil
	}
	return &HandshakeError{
		Text: fmt.Sprintf("the peer at %s speaks %s, and this server accepts only ALTS from it; let it use "+
			"shared-altsd, or allow %s in Mixed", remote, kind, kind),
		Err: ErrUnauthenticated,
	}
}

// serve starts a net.Conn for a peer that does not speak ALTS.
func (m *Mixed) serve(ctx context.Context, kind string, conn *prefixConn) (net.Conn, credentials.AuthInfo, error) {
	if kind == KindPlaintext {
		return conn, Unauthenticated{Kind: kind}, nil
	}
	t := tls.Server(conn, m.TLS)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, nil, &HandshakeError{Text: "TLS: " + err.Error(), Err: err}
	}
	return t, Unauthenticated{Kind: kind, Inner: tlsInfo(t.ConnectionState())}, nil
}

func tlsInfo(state tls.ConnectionState) credentials.TLSInfo {
	return credentials.TLSInfo{
		State:          state,
		CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}
}

// serverHandshake is ServerHandshake of gRPC's credentials. TLS is left to grpc's own, which demands HTTP/2.
func (m *Mixed) serverHandshake(raw net.Conn, s *settings) (conn net.Conn, info credentials.AuthInfo, err error) {
	err = s.bounded(context.Background(), raw, func(ctx context.Context) error {
		kind, first, err := m.classify(raw)
		if err != nil {
			return err
		}
		prefixed := &prefixConn{Conn: raw, prefix: first}
		switch kind {
		case kindALTS:
			c := &Conn{raw: raw, settings: s, received: first}
			if err := c.HandshakeContext(ctx); err != nil {
				return err
			}
			conn, info = c, c.AuthInfo()
		case KindTLS:
			var inner credentials.AuthInfo
			if conn, inner, err = credentials.NewTLS(m.TLS).ServerHandshake(prefixed); err != nil {
				return &HandshakeError{Text: "TLS: " + err.Error(), Err: err}
			}
			info = Unauthenticated{Kind: kind, Inner: inner}
		default:
			conn, info = prefixed, Unauthenticated{Kind: kind}
		}
		return nil
	})
	return conn, info, err
}

// A prefixConn has its Read return bytes that were read before, to find out what the peer speaks.
type prefixConn struct {
	net.Conn
	prefix []byte
}

// Read returns the prefix, then what follows.
func (p *prefixConn) Read(b []byte) (int, error) {
	if len(p.prefix) > 0 {
		n := copy(b, p.prefix)
		p.prefix = p.prefix[n:]
		return n, nil
	}
	return p.Conn.Read(b)
}

// CloseWrite ends this side's direction.
func (p *prefixConn) CloseWrite() error { return closeWrite(p.Conn) }

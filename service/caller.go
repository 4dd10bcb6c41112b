package service

import (
	"context"

	"google.golang.org/grpc/peer"
)

// CallerFromContext gives who called a method of a service that Config.Register added; ok is false if ctx is not one of
// such a call. A caller whom the socket refuses is not let through.
func CallerFromContext(ctx context.Context) (c Caller, ok bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Caller{}, false
	}
	info, ok := p.AuthInfo.(callerInfo)
	return info.Caller, ok && info.refusal == nil
}

// Package altspb holds the messages of gRPC's handshaker protocol, what the daemon adds to them, and the names under
// which the service is called.
package altspb

//go:generate protoc --go_out=../.. --go_opt=module=github.com/shared-altsd/shared-altsd -I ../.. internal/altspb/handshaker.proto internal/altspb/refusal.proto internal/altspb/standing.proto

const (
	// ServiceName is the service that every ALTS library calls; it differs from the protobuf package (see
	// handshaker.proto).
	ServiceName = "grpc.gcp.HandshakerService"
	// MethodName is its only method, a bidirectional stream of HandshakerReq and HandshakerResp.
	MethodName = "DoHandshake"
	// FullMethod is the path of that method on the wire.
	FullMethod = "/" + ServiceName + "/" + MethodName

	// WatchName is the method of our own by which connections that stand are watched, a bidirectional stream of
	// WatchRequest and WatchAnswer (standing.proto).
	WatchName = "Watch"
	// WatchMethod is its path.
	WatchMethod = "/sharedaltsd.handshaker.Standing/" + WatchName
)

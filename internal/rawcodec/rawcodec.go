// Package rawcodec is a codec for gRPC that copies nothing, so that a benchmark measures the transport.
package rawcodec

import "google.golang.org/grpc/mem"

// Codec sends a *[]byte as it is, and of what it receives sets an *int to the length.
type Codec struct{}

// Name returns "raw".
func (Codec) Name() string { return "raw" }

// Marshal returns the bytes that v, a *[]byte, leads to.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

// Unmarshal sets v, an *int, to how many bytes came.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*int) = data.Len()
	return nil
}

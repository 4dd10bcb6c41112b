package altscreds

import "sync"

// bufferSizes are the sizes, in bytes, of the pooled buffers: for a small message; for the 32 KiB that gRPC writes at a
// time with its overhead; for the largest frame that we ask for and send; for the largest batch written; for the largest
// frame received.
var bufferSizes = [...]int{2 << 10, 40 << 10, advertisedFrame, writeBatch, lengthSize + maxLength}

var bufferPools [len(bufferSizes)]sync.Pool

// bufferHook, set in tests only, is told +1 for each buffer taken and -1 for each returned.
var bufferHook func(delta int)

// getBuffer returns a buffer of at least n bytes and of the full length of its size, or nil if n is over the largest
// size. Its content is whatever the last user left.
func getBuffer(n int) *[]byte {
	for i, size := range bufferSizes {
		if n > size {
			continue
		}
		if bufferHook != nil {
			bufferHook(1)
		}
		if b, ok := bufferPools[i].Get().(*[]byte); ok {
			return b
		}
		b := make([]byte, size)
		return &b
	}
	return nil
}

// putBuffer returns a buffer that getBuffer gave. Nothing may refer to it afterwards.
func putBuffer(b *[]byte) {
	for i, size := range bufferSizes {
		if len(*b) == size {
			bufferPools[i].Put(b)
		}
	}
	if bufferHook != nil {
		bufferHook(-1)
	}
}

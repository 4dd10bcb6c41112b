package matrix

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"iter"
	"sync"

	"google.golang.org/protobuf/types/known/wrapperspb"
)

// patternChunk is one chunk of what interop.proto has a download consist of; it repeats after 65536 bytes.
var patternChunk = sync.OnceValue(func() []byte {
	b := make([]byte, chunkSize)
	for i := range b {
		b[i] = byte(i>>8 ^ i)
	}
	return b
})

// sendPattern calls send with chunks of the pattern, size bytes in all.
func sendPattern(size int, send func(*wrapperspb.BytesValue) error) error {
	for at := 0; at < size; at += chunkSize {
		if err := send(wrapperspb.Bytes(patternChunk()[:min(chunkSize, size-at)])); err != nil {
			return err
		}
	}
	return nil
}

func patternDigest(size int) string {
	h := sha256.New()
	sendPattern(size, func(b *wrapperspb.BytesValue) error { h.Write(b.Value); return nil })
	return hex.EncodeToString(h.Sum(nil))
}

// sizes returns the sizes of the messages of "echo N M", largest being M: the largest, the least, then powers of two at
// random as bounds of random sizes, so that small sizes are frequent, too. The other programs have the same sequence.
func sizes(n, largest int) iter.Seq[int] {
	return func(yield func(int) bool) {
		random := uint64(0)
		for i := range n {
			size := largest
			if i == 1 {
				size = 1
			} else if i > 1 {
				random = random*6364136223846793005 + 1442695040888963407
				size = 1 + int(random>>32%min(uint64(largest), 1<<(random>>59)))
			}
			if !yield(size) {
				return
			}
		}
	}
}

// echoMessages calls send with the messages of "echo N M".
func echoMessages(n, largest int, send func(*wrapperspb.BytesValue) error) error {
	const period = 1 << 16
	pattern := bytes.Repeat(patternChunk()[:period], (largest+period-1)/period+1)
	at := 0
	for size := range sizes(n, largest) {
		if err := send(wrapperspb.Bytes(pattern[at : at+size])); err != nil {
			return err
		}
		at = (at + size) % period
	}
	return nil
}

// addMessage adds a message to a digest, its size and a colon before it.
func addMessage(h hash.Hash, b *wrapperspb.BytesValue) {
	fmt.Fprintf(h, "%d:", len(b.Value))
	h.Write(b.Value)
}

func echoDigest(n, largest int) string {
	h := sha256.New()
	echoMessages(n, largest, func(b *wrapperspb.BytesValue) error { addMessage(h, b); return nil })
	return hex.EncodeToString(h.Sum(nil))
}

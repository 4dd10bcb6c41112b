package altscreds

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	// keySize is how much of the key data the record protocol uses: 32 bytes to derive keys, 12 as nonce mask.
	keySize = 44
	tagSize = 16
)

var (
	errRecordAuth = errors.New("altscreds: a frame did not authenticate: something between the two ends changes bytes, " +
		"or the peer is faulty")
	errRecordCounter = errors.New("altscreds: all frame numbers of this connection are used up; open a new one")
)

// cipherState is the cipher of one direction of a connection: a counter, and a key that it changes every 2^16 frames.
type cipherState struct {
	kdfKey    [32]byte
	nonceMask [12]byte
	nonce     [12]byte // scratch, here because the AEAD lets its arguments escape
	direction byte     // the last byte of the counter: 0x80 for server to client
	counter   uint64   // of the next frame
	exhausted bool     // the counter has come round
	epoch     uint64   // counter >> 16 that aead was made for
	aead      cipher.AEAD
}

func (s *cipherState) init(keyData []byte, fromServer bool) {
	copy(s.kdfKey[:], keyData[:32])
	copy(s.nonceMask[:], keyData[32:keySize])
	if fromServer {
		s.direction = 0x80
	}
}

// next sets the AEAD and s.nonce for the next frame. The key is derived anew from bits 16 to 63 of the counter, so that
// one key serves 2^16 frames.
func (s *cipherState) next() error {
	if s.exhausted {
		return errRecordCounter
	}
	if epoch := s.counter >> 16; s.aead == nil || epoch != s.epoch {
		var info [9]byte
		binary.LittleEndian.PutUint64(info[:], epoch) // the upper 2 bytes are 0
		mac := hmac.New(sha256.New, s.kdfKey[:])
		mac.Write(info[:6])
		mac.Write([]byte{1})
		block, err := aes.NewCipher(mac.Sum(nil)[:16])
		if err != nil {
			return fmt.Errorf("altscreds: AES-128: %w", err)
		}
		aead, err := cipher.NewGCM(block)
		if err != nil {
			return fmt.Errorf("altscreds: AES-128-GCM: %w", err)
		}
		s.aead, s.epoch = aead, epoch
	}
	mask := binary.LittleEndian.Uint64(s.nonceMask[:8])
	binary.LittleEndian.PutUint64(s.nonce[:8], s.counter^mask)
	copy(s.nonce[8:], s.nonceMask[8:])
	s.nonce[11] ^= s.direction
	return nil
}

// advance counts a frame as done.
func (s *cipherState) advance() {
	s.counter++
	s.exhausted = s.counter == 0
}

// seal encrypts to the beginning of dst, which has room for the tag and is where plaintext is or does not overlap it.
func (s *cipherState) seal(dst, plaintext []byte) error {
	if err := s.next(); err != nil {
		return err
	}
	s.aead.Seal(dst[:0:len(plaintext)+tagSize], s.nonce[:], plaintext, nil)
	s.advance()
	return nil
}

// open decrypts to the beginning of dst, which is exactly the payload or does not overlap it.
func (s *cipherState) open(dst, ciphertext []byte) error {
	if err := s.next(); err != nil {
		return err
	}
	n := len(ciphertext) - tagSize
	if _, err := s.aead.Open(dst[:0:n], s.nonce[:], ciphertext, nil); err != nil {
		return errRecordAuth
	}
	s.advance()
	return nil
}

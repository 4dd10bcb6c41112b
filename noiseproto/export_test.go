package noiseproto

import (
	"crypto/ecdh"

	"github.com/shared-altsd/shared-altsd/internal/mlkem768"
	"github.com/shared-altsd/shared-altsd/internal/x25519"
)

// fixedKeys is a keySource whose keys are known before: for vectors. Each is given out once.
type fixedKeys struct {
	ephemeral  []byte // X25519 private key, 32 bytes
	seed       []byte // d || z of ML-KEM key generation, 64 bytes
	randomness []byte // m of ML-KEM encapsulation, 32 bytes
	secret     []byte // what encapsulate gave out, to see that it is wiped
}

func (k *fixedKeys) X25519() (*x25519.KeyPair, error) {
	key, err := ecdh.X25519().NewPrivateKey(k.ephemeral)
	if err != nil {
		return nil, err
	}
	k.ephemeral = nil
	return &x25519.KeyPair{Private: [32]byte(key.Bytes()), Public: [32]byte(key.PublicKey().Bytes())}, nil
}

func (k *fixedKeys) MLKEM768() (*mlkem768.DecapsulationKey, error) {
	b := k.seed
	k.seed = nil
	return mlkem768.FromSeed((*[mlkem768.SeedSize]byte)(b)), nil
}

func (k *fixedKeys) encapsulate(ek *mlkem768.EncapsulationKey) (secret, ciphertext []byte) {
	secret, ciphertext = ek.EncapsulateWith((*[mlkem768.RandomnessSize]byte)(k.randomness))
	k.secret = secret
	return secret, ciphertext
}

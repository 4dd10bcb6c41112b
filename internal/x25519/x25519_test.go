package x25519

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"errors"
	"testing"
)

func fromHex(t testing.TB, s string) (b [Size]byte) {
	t.Helper()
	if n, err := hex.Decode(b[:], []byte(s)); err != nil || n != Size {
		t.Fatal(n, err)
	}
	return b
}

// RFC 7748, section 5.2.
func TestVectors(t *testing.T) {
	for _, v := range [][3]string{
		{"a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4", "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c", "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552"},
		{"4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d", "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493", "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957"},
	} {
		private, public := fromHex(t, v[0]), fromHex(t, v[1])
		if got, err := Shared(&private, &public); err != nil || got != fromHex(t, v[2]) {
			t.Errorf("%s: %x, %v", v[0], got, err)
		}
	}
	k := [Size]byte{9}
	u := k
	for i := 1; i <= 1000; i++ {
		got, err := Shared(&k, &u)
		if err != nil {
			t.Fatal(err)
		}
		k, u = got, k
		if i == 1 && k != fromHex(t, "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079") {
			t.Errorf("after 1: %x", k)
		}
	}
	if k != fromHex(t, "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51") {
		t.Errorf("after 1000: %x", k)
	}
}

// Whatever a private key and a peer's public key are, canonical or not, of low order or not, crypto/ecdh says the same.
func FuzzShared(f *testing.F) {
	f.Add(make([]byte, Size), make([]byte, Size))
	f.Add(bytes.Repeat([]byte{0xff}, Size), bytes.Repeat([]byte{0xff}, Size))
	for _, low := range []string{
		"0100000000000000000000000000000000000000000000000000000000000000", "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"cdeb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880", "4c9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f11d7",
	} {
		b := fromHex(f, low)
		f.Add(bytes.Repeat([]byte{0x42}, Size), b[:])
	}
	f.Fuzz(func(t *testing.T, private, public []byte) {
		if len(private) < Size || len(public) < Size {
			return
		}
		private, public = private[:Size], public[:Size]
		key, err := ecdh.X25519().NewPrivateKey(private)
		if err != nil {
			t.Fatal(err)
		}
		peer, err := ecdh.X25519().NewPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		want, wantErr := key.ECDH(peer)
		got, err := Shared((*[Size]byte)(private), (*[Size]byte)(public))
		if (err != nil) != (wantErr != nil) || err == nil && !bytes.Equal(got[:], want) {
			t.Fatalf("%x with %x: %x, %v; crypto/ecdh: %x, %v", private, public, got, err, want, wantErr)
		}
		if err != nil && (!errors.Is(err, ErrLowOrder) || got != [Size]byte{}) {
			t.Fatalf("%x, %v", got, err)
		}
	})
}

// A key pair is that of crypto/ecdh, is made anew each time, and can be wiped.
func TestGenerate(t *testing.T) {
	seen := map[[Size]byte]bool{}
	for range 100 {
		k := Generate()
		key, err := ecdh.X25519().NewPrivateKey(k.Private[:])
		if err != nil || !bytes.Equal(key.PublicKey().Bytes(), k.Public[:]) || seen[k.Private] {
			t.Fatalf("%v, seen %v", err, seen[k.Private])
		}
		seen[k.Private] = true
		if k.Wipe(); k.Private != [Size]byte{} {
			t.Fatal("the private key is there still")
		}
	}
}

func BenchmarkGenerate(b *testing.B) {
	for b.Loop() {
		Generate()
	}
}

func BenchmarkShared(b *testing.B) {
	k, peer := Generate(), Generate()
	for b.Loop() {
		Shared(&k.Private, &peer.Public)
	}
}

func BenchmarkSharedStandardLibrary(b *testing.B) {
	k, peer := Generate(), Generate()
	key, _ := ecdh.X25519().NewPrivateKey(k.Private[:])
	for b.Loop() {
		public, _ := ecdh.X25519().NewPublicKey(peer.Public[:])
		key.ECDH(public)
	}
}

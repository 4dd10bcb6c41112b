package mlkem768

import (
	"bytes"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha256"
	"crypto/sha3"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/cpu"
)

// expand returns n bytes that follow from b.
func expand(b []byte, n int) []byte {
	out := make([]byte, n)
	x := sha3.NewSHAKE256()
	x.Write(b)
	x.Read(out)
	return out
}

// same holds a key pair, an encapsulation and two decapsulations, of the ciphertext and of one that was changed, against crypto/mlkem.
func same(t *testing.T, seed, m, change []byte) {
	t.Helper()
	ours := FromSeed((*[SeedSize]byte)(seed))
	theirs, err := mlkem.NewDecapsulationKey768(seed)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(ours.EncapsulationKey(), theirs.EncapsulationKey().Bytes()) {
		t.Fatal("another encapsulation key")
	}
	ek, err := NewEncapsulationKey(theirs.EncapsulationKey().Bytes())
	if err != nil {
		t.Fatal(err)
	}
	secret, ciphertext := ek.EncapsulateWith((*[RandomnessSize]byte)(m))
	wantSecret, wantCiphertext, err := mlkemtest.Encapsulate768(theirs.EncapsulationKey(), m)
	if err != nil || !bytes.Equal(secret, wantSecret) || !bytes.Equal(ciphertext, wantCiphertext) {
		t.Fatalf("another encapsulation: %v", err)
	}
	changed := bytes.Clone(ciphertext)
	for i, c := range change {
		changed[i%CiphertextSize] ^= c
	}
	for _, c := range [][]byte{ciphertext, changed} {
		got, err := ours.Decapsulate(c)
		want, wantErr := theirs.Decapsulate(c)
		if err != nil || wantErr != nil || !bytes.Equal(got, want) {
			t.Fatalf("another decapsulation: %v, %v", err, wantErr)
		}
		if bytes.Equal(c, ciphertext) != bytes.Equal(got, secret) {
			t.Fatal("the secret of another ciphertext")
		}
	}
}

// TestSame has enough of them for each coefficient to be rounded in each way.
func TestSame(t *testing.T) {
	for i := range 2000 {
		b := expand([]byte{byte(i), byte(i >> 8)}, SeedSize+RandomnessSize+CiphertextSize)
		change := b[SeedSize+RandomnessSize:]
		if i%2 == 0 {
			change = []byte{1 << (i / 2 % 8)} // one bit
		}
		same(t, b[:SeedSize], b[SeedSize:SeedSize+RandomnessSize], change)
	}
}

// withoutVectors has the tests run on a processor without AVX2, for which the library has other code.
const withoutVectors = "SHARED_ALTSD_TEST_WITHOUT_VECTORS"

func TestWithoutVectors(t *testing.T) {
	if runtime.GOARCH != "amd64" || !cpu.X86.HasAVX2 || os.Getenv(withoutVectors) != "" {
		return // what the other tests run is that code
	}
	cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^(TestSame|TestEncapsulationKey|FuzzSame|FuzzEncapsulationKey|TestNoVectors)$")
	cmd.Env = append(os.Environ(), "GODEBUG=cpu.avx2=off", withoutVectors+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("PASS: TestSame")) || !bytes.Contains(out, []byte("PASS: TestNoVectors")) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNoVectors(t *testing.T) {
	if os.Getenv(withoutVectors) != "" && cpu.X86.HasAVX2 {
		t.Error("the processor has AVX2 all the same")
	}
}

func FuzzSame(f *testing.F) {
	f.Add(make([]byte, SeedSize), make([]byte, RandomnessSize), []byte{1})
	f.Add(bytes.Repeat([]byte{0xff}, SeedSize), bytes.Repeat([]byte{0xff}, RandomnessSize), bytes.Repeat([]byte{0xff}, CiphertextSize))
	f.Fuzz(func(t *testing.T, seed, m, change []byte) {
		if len(seed) >= SeedSize && len(m) >= RandomnessSize {
			same(t, seed[:SeedSize], m[:RandomnessSize], change)
		}
	})
}

// keyFor encapsulates to b by each library, if it is a key to each.
func keyFor(t *testing.T, b []byte) (err error) {
	t.Helper()
	ours, err := NewEncapsulationKey(b)
	theirs, wantErr := mlkem.NewEncapsulationKey768(b)
	if (err != nil) != (wantErr != nil) {
		t.Fatalf("%v; crypto/mlkem: %v", err, wantErr)
	}
	if err != nil {
		return err
	}
	m := expand(b, RandomnessSize)
	secret, ciphertext := ours.EncapsulateWith((*[RandomnessSize]byte)(m))
	wantSecret, wantCiphertext, err := mlkemtest.Encapsulate768(theirs, m)
	if err != nil || !bytes.Equal(secret, wantSecret) || !bytes.Equal(ciphertext, wantCiphertext) {
		t.Fatalf("another encapsulation: %v", err)
	}
	return nil
}

// What a peer sends as a key is one to both libraries or to neither (FIPS 203, section 7.2), whatever it is.
func FuzzEncapsulationKey(f *testing.F) {
	f.Add([]byte{}, 0, uint16(0))
	f.Add([]byte{1}, 5, uint16(3329))
	f.Add([]byte{2}, 767, uint16(4095))
	f.Fuzz(func(t *testing.T, b []byte, at int, coefficient uint16) {
		keyFor(t, b)
		key := expand(b, EncapsulationKeySize) // coefficients of 12 bits, of which one in five is too large
		for i := range 768 {
			put(key, i, get(key, i)%3329)
		}
		if keyFor(t, key) != nil {
			t.Fatal("a good key is refused")
		}
		put(key, int(uint(at)%768), coefficient%4096)
		keyFor(t, key)
	})
}

// get and put have to do with coefficient i of a key: two lie in three bytes.
func get(key []byte, i int) uint16 {
	b := key[i/2*3:]
	if i%2 == 0 {
		return uint16(b[0]) | uint16(b[1]&15)<<8
	}
	return uint16(b[1]>>4) | uint16(b[2])<<4
}

func put(key []byte, i int, v uint16) {
	b := key[i/2*3:]
	if i%2 == 0 {
		b[0], b[1] = byte(v), b[1]&0xf0|byte(v>>8)
	} else {
		b[1], b[2] = b[1]&15|byte(v<<4), byte(v>>4)
	}
}

// Each coefficient of a key has to be reduced.
func TestEncapsulationKey(t *testing.T) {
	good := Generate().EncapsulationKey()
	if err := keyFor(t, good); err != nil {
		t.Fatal(err)
	}
	for i := range 768 {
		for _, v := range []uint16{3328, 3329, 4095} {
			key := bytes.Clone(good)
			put(key, i, v)
			if err := keyFor(t, key); (err != nil) != (v > 3328) {
				t.Errorf("coefficient %d of %d: %v", i, v, err)
			}
		}
	}
	for _, n := range []int{0, 1, EncapsulationKeySize - 1, EncapsulationKeySize + 1, 2 * EncapsulationKeySize} {
		if keyFor(t, make([]byte, n)) == nil {
			t.Errorf("a key of %d bytes is none", n)
		}
	}
}

func TestCiphertextSize(t *testing.T) {
	k := Generate()
	for _, n := range []int{0, CiphertextSize - 1, CiphertextSize + 1} {
		if _, err := k.Decapsulate(make([]byte, n)); err == nil {
			t.Errorf("a ciphertext of %d bytes is none", n)
		}
	}
}

// Nothing comes twice.
func TestFresh(t *testing.T) {
	seen := map[string]bool{}
	once := func(b []byte) {
		if seen[string(b)] {
			t.Error("twice")
		}
		seen[string(b)] = true
	}
	for range 50 {
		k := Generate()
		once(k.EncapsulationKey())
		ek, err := NewEncapsulationKey(k.EncapsulationKey())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			secret, ciphertext := ek.Encapsulate()
			once(secret)
			once(ciphertext)
			if got, err := k.Decapsulate(ciphertext); err != nil || !bytes.Equal(got, secret) {
				t.Errorf("another secret, %v", err)
			}
		}
	}
}

func BenchmarkGenerate(b *testing.B) {
	for b.Loop() {
		Generate()
	}
}

func BenchmarkGenerateStandardLibrary(b *testing.B) {
	for b.Loop() {
		mlkem.GenerateKey768()
	}
}

func BenchmarkEncapsulate(b *testing.B) {
	key := Generate().EncapsulationKey()
	for b.Loop() {
		ek, _ := NewEncapsulationKey(key)
		ek.Encapsulate()
	}
}

func BenchmarkEncapsulateStandardLibrary(b *testing.B) {
	key := Generate().EncapsulationKey()
	for b.Loop() {
		ek, _ := mlkem.NewEncapsulationKey768(key)
		ek.Encapsulate()
	}
}

func BenchmarkDecapsulate(b *testing.B) {
	k := Generate()
	ek, _ := NewEncapsulationKey(k.EncapsulationKey())
	_, ciphertext := ek.Encapsulate()
	for b.Loop() {
		k.Decapsulate(ciphertext)
	}
}

func BenchmarkDecapsulateStandardLibrary(b *testing.B) {
	k, _ := mlkem.GenerateKey768()
	_, ciphertext := k.EncapsulationKey().Encapsulate()
	for b.Loop() {
		k.Decapsulate(ciphertext)
	}
}

// What follows a use of the library must not be slower for it: see leaveVectors.
func BenchmarkSHA256AfterDecapsulate(b *testing.B) {
	k := Generate()
	ek, _ := NewEncapsulationKey(k.EncapsulationKey())
	_, ciphertext := ek.Encapsulate()
	for b.Loop() {
		k.Decapsulate(ciphertext)
		sha256.Sum256(ciphertext)
	}
}

package certbind

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/shared-altsd/shared-altsd/internal/reason"
)

func sampleStatement() *Statement {
	s := &Statement{
		Machine: alpha, Account: "alice",
		Attributes: []Attribute{{"groups", "hpc,staff"}, {"uid", "1000"}},
		NotBefore:  time.Unix(1700000000, 0).UTC(), NotAfter: time.Unix(1700021600, 0).UTC(),
	}
	for i := range s.StaticKey {
		s.StaticKey[i], s.Leaf[i] = byte(i), byte(0x80+i)
	}
	return s
}

// The bytes of a statement, written out by hand from docs/spec/protocol.md.
const sampleStatementHex = "0001" + "01" +
	"0020" + "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f" +
	"0020" + "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f" +
	"0011" + "616c7068612e6578616d706c652e636f6d" +
	"0005" + "616c696365" +
	"001c" + "06" + "67726f757073" + "0009" + "6870632c7374616666" + "03" + "756964" + "0004" + "31303030" +
	"0008" + "000000006553f100" +
	"0008" + "0000000065544560"

func TestRule08StatementBytes(t *testing.T) {
	want, err := hex.DecodeString(sampleStatementHex)
	if err != nil {
		t.Fatal(err)
	}
	got, err := sampleStatement().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("got  %x\nwant %x", got, want)
	}
	back, err := ParseStatement(got)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back, sampleStatement()) {
		t.Fatalf("got %+v", back)
	}
	in := SignatureInput(got)
	if want := strings.Repeat(" ", 64) + "shared-altsd v1 machine statement\x00" + string(got); string(in) != want {
		t.Fatalf("the signature input is %q", in)
	}
}

// damaged returns b cut at each byte, with bytes added, and with one added to and taken from each length of prefix
// bytes at the places given.
func damaged(b []byte, lengths []int) map[string][]byte {
	out := map[string][]byte{"one byte more": append(bytes.Clone(b), 0), "twice": append(bytes.Clone(b), b...)}
	for i := range b {
		out[fmt.Sprintf("cut at %d", i)] = b[:i]
	}
	for _, at := range lengths {
		n := binary.BigEndian.Uint16(b[at:])
		for name, v := range map[string]uint16{"plus one": n + 1, "minus one": n - 1, "most": 0xffff, "zero": 0} {
			if v == n {
				continue
			}
			d := bytes.Clone(b)
			binary.BigEndian.PutUint16(d[at:], v)
			out[fmt.Sprintf("length at %d %s", at, name)] = d
		}
	}
	return out
}

func TestRule08DamagedStatements(t *testing.T) {
	good, err := sampleStatement().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	// Places of the lengths: of the eight fields, and of the values of the two attributes.
	lengths := []int{0, 3, 37, 71, 90, 97, 106, 121, 127, 137}
	for name, d := range damaged(good, lengths) {
		if _, err := ParseStatement(d); reason.Of(err) != reason.StatementInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	edit := func(at int, v byte) []byte { d := bytes.Clone(good); d[at] = v; return d }
	for name, d := range map[string][]byte{
		"version 2":              edit(2, 2),
		"attribute name empty":   edit(99, 0),
		"attribute name long":    edit(99, 33),
		"not before, year 10000": edit(132, 0x7f),
		"time of 64 bits":        edit(129, 0xff),
		"empty":                  {},
		"much too long":          make([]byte, maxStatement+1),
	} {
		if _, err := ParseStatement(d); reason.Of(err) != reason.StatementInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRule08StatementBounds(t *testing.T) {
	many := make([]Attribute, maxAttributes+1)
	for i := range many {
		many[i] = Attribute{Name: string(rune('a' + i))}
	}
	for name, tc := range map[string]struct {
		edit func(*Statement)
		ok   bool
	}{
		"longest machine":  {func(s *Statement) { s.Machine = strings.Repeat("m", 253) }, true},
		"machine too long": {func(s *Statement) { s.Machine = strings.Repeat("m", 254) }, false},
		"no machine":       {func(s *Statement) { s.Machine = "" }, false},
		"longest account":  {func(s *Statement) { s.Account = strings.Repeat("a", 128) }, true},
		"account too long": {func(s *Statement) { s.Account = strings.Repeat("a", 129) }, false},
		"no account":       {func(s *Statement) { s.Account = "" }, false},
		"no attributes":    {func(s *Statement) { s.Attributes = nil }, true},
		"16 attributes":    {func(s *Statement) { s.Attributes = many[:16] }, true},
		"17 attributes":    {func(s *Statement) { s.Attributes = many }, false},
		"name of 32":       {func(s *Statement) { s.Attributes = []Attribute{{strings.Repeat("n", 32), ""}} }, true},
		"name of 33":       {func(s *Statement) { s.Attributes = []Attribute{{strings.Repeat("n", 33), ""}} }, false},
		"name empty":       {func(s *Statement) { s.Attributes = []Attribute{{"", "v"}} }, false},
		"value of 2048":    {func(s *Statement) { s.Attributes = []Attribute{{"n", strings.Repeat("v", 2048)}} }, true},
		"value of 2049":    {func(s *Statement) { s.Attributes = []Attribute{{"n", strings.Repeat("v", 2049)}} }, false},
		"values of 3 KiB": {func(s *Statement) {
			v := strings.Repeat("v",
				1600)
			s.Attributes = []Attribute{{"a", v}, {"b", v}}
		}, false},
		"descending":         {func(s *Statement) { s.Attributes = []Attribute{{"b", ""}, {"a", ""}} }, false},
		"twice":              {func(s *Statement) { s.Attributes = []Attribute{{"a", ""}, {"a", ""}} }, false},
		"end of year 9999":   {func(s *Statement) { s.NotAfter = time.Unix(maxUnixTime, 0) }, true},
		"beyond year 9999":   {func(s *Statement) { s.NotAfter = time.Unix(maxUnixTime+1, 0) }, false},
		"before 1970":        {func(s *Statement) { s.NotBefore = time.Unix(-1, 0) }, false},
		"the beginning 1970": {func(s *Statement) { s.NotBefore = time.Unix(0, 0) }, true},
	} {
		s := sampleStatement()
		tc.edit(s)
		b, err := s.Marshal()
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			if _, err := ParseStatement(b); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// The parser does not rely on the writer: the same orders, encoded by hand.
	for name, attrs := range map[string]string{
		"descending": "\x01b\x00\x00\x01a\x00\x00",
		"twice":      "\x01a\x00\x00\x01a\x00\x00",
		"17":         strings.Repeat("\x01a\x00\x00", 17),
	} {
		if _, err := parseAttributes([]byte(attrs)); err == nil {
			t.Errorf("attributes %s were accepted", name)
		}
	}
}

func sampleIdentity() *Identity {
	return &Identity{
		Certificates: [][]byte{bytes.Repeat([]byte{1}, 10), bytes.Repeat([]byte{2}, 20)},
		Statement:    bytes.Repeat([]byte{3}, 30), Signature: bytes.Repeat([]byte{4}, 40),
	}
}

func TestRule11IdentityFormat(t *testing.T) {
	good, err := sampleIdentity().Marshal()
	if err != nil {
		t.Fatal(err)
	}
	want := "\x02\x00\x0a" + strings.Repeat("\x01", 10) + "\x00\x14" + strings.Repeat("\x02", 20) +
		"\x00\x1e" + strings.Repeat("\x03", 30) + "\x00\x28" + strings.Repeat("\x04", 40)
	if string(good) != want {
		t.Fatalf("got %x", good)
	}
	back, err := ParseIdentity(good)
	if err != nil || !reflect.DeepEqual(back, sampleIdentity()) {
		t.Fatalf("got %+v, %v", back, err)
	}
	bad := damaged(good, []int{1, 13, 35, 67})
	for _, count := range []byte{0, 1, 3, 4, 5, 255} {
		d := bytes.Clone(good)
		d[0] = count
		bad[fmt.Sprintf("count %d", count)] = d
	}
	bad["too long"] = make([]byte, maxIdentity+1)
	for name, d := range bad {
		if _, err := ParseIdentity(d); reason.Of(err) != reason.Malformed {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRule11IdentityBounds(t *testing.T) {
	for name, tc := range map[string]struct {
		edit func(*Identity)
		ok   bool
	}{
		"no certificate":        {func(id *Identity) { id.Certificates = nil }, false},
		"an empty certificate":  {func(id *Identity) { id.Certificates[1] = nil }, false},
		"four":                  {func(id *Identity) { id.Certificates = [][]byte{{1}, {2}, {3}, {4}} }, true},
		"five":                  {func(id *Identity) { id.Certificates = [][]byte{{1}, {2}, {3}, {4}, {5}} }, false},
		"16 KiB":                {func(id *Identity) { id.Certificates = [][]byte{make([]byte, 16384)} }, true},
		"16 KiB and one":        {func(id *Identity) { id.Certificates = [][]byte{make([]byte, 16385)} }, false},
		"16 KiB in two":         {func(id *Identity) { id.Certificates = [][]byte{make([]byte, 16383), {1}} }, true},
		"16 KiB and one in two": {func(id *Identity) { id.Certificates = [][]byte{make([]byte, 16383), {1, 2}} }, false},
		"no statement":          {func(id *Identity) { id.Statement = nil }, false},
		"longest statement":     {func(id *Identity) { id.Statement = make([]byte, 4096) }, true},
		"statement too long":    {func(id *Identity) { id.Statement = make([]byte, 4097) }, false},
		"no signature":          {func(id *Identity) { id.Signature = nil }, false},
		"longest signature":     {func(id *Identity) { id.Signature = make([]byte, 1024) }, true},
		"signature too long":    {func(id *Identity) { id.Signature = make([]byte, 1025) }, false},
	} {
		id := sampleIdentity()
		tc.edit(id)
		b, err := id.Marshal()
		if (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			if _, err := ParseIdentity(b); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	over := []byte{2, 0x3f, 0xff} // a second certificate that the first one has left one byte for
	over = append(over, make([]byte, 16383)...)
	over = append(over, 0, 2, 0, 0, 0, 1, 1, 0, 1, 1)
	if _, err := ParseIdentity(over); reason.Of(err) != reason.Malformed {
		t.Errorf("certificates of 16385 bytes: %v", err)
	}
}

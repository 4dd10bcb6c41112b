package fetchcrl

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/shared-altsd/shared-altsd/certbind"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

var loopback = []net.IP{net.IPv4(127, 0, 0, 1)}

func serverTLS(t *testing.T, i *testca.Issued) *tls.Config {
	t.Helper()
	pair, err := tls.X509KeyPair(i.CertPEM, i.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{pair}}
}

func mustRead(t *testing.T, w *world, der []byte) *certbind.List {
	t.Helper()
	l, err := certbind.ReadList(der, w.config.Issuers)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// list0 returns the one list that is in the directory.
func (w *world) list0() []byte {
	w.t.Helper()
	names, err := filepath.Glob(filepath.Join(w.config.Dir, "*"+listEnd))
	if err != nil || len(names) != 1 {
		w.t.Fatalf("%d lists: %v", len(names), err)
	}
	data, err := os.ReadFile(names[0])
	if err != nil {
		w.t.Fatal(err)
	}
	return data
}

// longPlace is testca.Places of one URI of any length.
func longPlace(uri string) pkix.Extension { return places(uri) }

// manyPlaces makes ten distribution points, their URIs numbered from first on.
func manyPlaces(first int) pkix.Extension {
	var uris []string
	for i := range 10 {
		uris = append(uris, fmt.Sprintf("http://a.test/%d", first+i))
	}
	return places(uris...)
}

// places makes one distribution point a URI.
func places(uris ...string) pkix.Extension {
	wrap := func(class, tag int, compound bool, content []byte) []byte {
		der, err := asn1.Marshal(asn1.RawValue{Class: class, Tag: tag, IsCompound: compound, Bytes: content})
		if err != nil {
			panic(err)
		}
		return der
	}
	var points []byte
	for _, uri := range uris {
		name := wrap(asn1.ClassContextSpecific, 6, false, []byte(uri))
		point := wrap(asn1.ClassContextSpecific, 0, true, wrap(asn1.ClassContextSpecific, 0, true, name))
		points = append(points, wrap(0, asn1.TagSequence, true, point)...)
	}
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 31}, Value: wrap(0, asn1.TagSequence, true, points)}
}

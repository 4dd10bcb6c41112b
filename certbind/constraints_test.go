package certbind

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/reason"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

func TestDirectoryNameConstraints(t *testing.T) {
	root := newCA(t, testca.Options{})
	unit := func(o, ou string) pkix.Name {
		return pkix.Name{Organization: []string{o}, OrganizationalUnit: []string{ou}}
	}
	org := pkix.Name{Organization: []string{"Example"}}
	constraint := func(critical, excluded bool, names ...pkix.Name) pkix.Extension {
		x, err := testca.DirectoryNames(critical, excluded, names...)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	san := func(n pkix.Name) []pkix.Extension {
		der, err := asn1.Marshal(n.ToRDNSequence())
		if err != nil {
			t.Fatal(err)
		}
		tagged, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 4, IsCompound: true, Bytes: der})
		if err != nil {
			t.Fatal(err)
		}
		host := append([]byte{0x82, byte(len(alpha))}, alpha...)
		value, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: append(host, tagged...)})
		if err != nil {
			t.Fatal(err)
		}
		return []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: value}}
	}
	for name, tc := range map[string]struct {
		constraint pkix.Extension
		leaf       testca.Leaf
		want       reason.Code
	}{
		"excluded":                         {constraint(false, true, org), testca.Leaf{Subject: org}, reason.MachineNameMismatch},
		"excluded, a name under it":        {constraint(false, true, org), testca.Leaf{Subject: unit("Example", "a")}, reason.MachineNameMismatch},
		"excluded, one of two":             {constraint(false, true, unit("Other", "a"), org), testca.Leaf{Subject: org}, reason.MachineNameMismatch},
		"excluded, a name above it":        {constraint(false, true, unit("Example", "a")), testca.Leaf{Subject: org}, reason.Accepted},
		"excluded, another name":           {constraint(false, true, org), testca.Leaf{Subject: pkix.Name{Organization: []string{"Example2"}}}, reason.Accepted},
		"excluded, no subject":             {constraint(false, true, org), testca.Leaf{}, reason.Accepted},
		"excluded, all names":              {constraint(false, true, pkix.Name{}), testca.Leaf{Subject: org}, reason.MachineNameMismatch},
		"excluded, in the SAN":             {constraint(false, true, org), testca.Leaf{ExtraExtensions: san(org)}, reason.MachineNameMismatch},
		"permitted":                        {constraint(false, false, org), testca.Leaf{Subject: unit("Example", "a")}, reason.Accepted},
		"permitted, one of two":            {constraint(false, false, unit("Other", "a"), org), testca.Leaf{Subject: org}, reason.Accepted},
		"permitted, another name":          {constraint(false, false, org), testca.Leaf{Subject: unit("Other", "a")}, reason.MachineNameMismatch},
		"permitted, no subject":            {constraint(false, false, org), testca.Leaf{}, reason.Accepted},
		"permitted, the SAN is another":    {constraint(false, false, org), testca.Leaf{Subject: org, ExtraExtensions: san(unit("Other", "a"))}, reason.MachineNameMismatch},
		"critical, though it would permit": {constraint(true, false, org), testca.Leaf{Subject: org}, reason.CertificateUnacceptable},
		"does not parse":                   {pkix.Extension{Id: oidNameConstraints, Value: []byte{0x30, 8, 0xa1, 6, 0x30, 4, 0xa4, 2, 0x30, 1}}, testca.Leaf{}, reason.MachineNameMismatch},
	} {
		t.Run(name, func(t *testing.T) {
			sub := intermediate(t, root, testca.Options{ExtraExtensions: []pkix.Extension{tc.constraint}})
			if tc.leaf.ExtraExtensions == nil {
				tc.leaf.Hosts = []string{alpha}
			}
			i := issue(t, sub, tc.leaf)
			c := newClaim(i, sub)
			c.Machine = alpha
			_, err := newTrust(t, trusting(root)).verify(c.sign(i), c.used, nil, c.now)
			wantCode(t, err, tc.want)
		})
	}
	t.Run("of the trust anchor, over an intermediate", func(t *testing.T) {
		limiting := newCA(t, testca.Options{ExtraExtensions: []pkix.Extension{constraint(false, true, pkix.Name{CommonName: "sub"})}})
		sub := intermediate(t, limiting, testca.Options{Name: "sub"})
		i := issue(t, sub, testca.Leaf{Hosts: []string{alpha}})
		c := newClaim(i, sub)
		_, err := newTrust(t, trusting(limiting)).verify(c.sign(i), c.used, nil, c.now)
		wantCode(t, err, reason.MachineNameMismatch)
	})
}

func FuzzDirectoryNames(f *testing.F) {
	x, err := testca.DirectoryNames(false, true, pkix.Name{CommonName: "a"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(x.Value, []byte{0x30, 0}, []byte{0x30, 0})
	f.Fuzz(func(t *testing.T, constraints, subject, san []byte) {
		ca := &x509.Certificate{Extensions: []pkix.Extension{{Id: oidNameConstraints, Value: constraints}}}
		leaf := &x509.Certificate{RawSubject: subject, Extensions: []pkix.Extension{{Id: oidSubjectAltName, Value: san}}}
		if forbidsDirectoryName(new(x509.Certificate), leaf) {
			t.Fatal("no constraints forbid something")
		}
		forbidsDirectoryName(ca, leaf)
	})
}

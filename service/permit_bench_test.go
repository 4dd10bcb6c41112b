package service

import (
	"testing"

	"github.com/shared-altsd/shared-altsd/internal/policy"
	"github.com/shared-altsd/shared-altsd/internal/testca"
)

// BenchmarkPermit is what policy costs a handshake on one side: without any, and with rules.
func BenchmarkPermit(b *testing.B) {
	m := testMachine(b, "alpha.test", testca.Leaf{})
	a, err := m.Attest(b.Context(), "alice", nil)
	if err != nil {
		b.Fatal(err)
	}
	p, err := m.Verify(a.Identity, a.Public)
	if err != nil {
		b.Fatal(err)
	}
	for name, by := range map[string]*policy.Policy{"none": nil, "rules": rules(b, "deny any * eve@beta.test\n", enforcing+"allow in bob alice@.test\n")} {
		b.Run(name, func(b *testing.B) {
			s, err := New(Config{Machine: m, Accounts: named("bob")})
			if err != nil {
				b.Fatal(err)
			}
			s.SetPolicy(by)
			h := &session{srv: s, role: Responder, me: &identity{Account{Name: "bob"}, "beta.test", nil}}
			b.ReportAllocs()
			for b.Loop() {
				if err := h.permit(p, "grpc"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

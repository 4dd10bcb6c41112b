package certbind

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"time"
)

const (
	// MaxMarks bounds how many lists are remembered, and maxMarksOfCA of one CA: one that makes up parts of its list leaves
	// room for others.
	MaxMarks, maxMarksOfCA = 1024, 64
	// maxAhead is how far ahead of our clock a list may have been made: clocks may differ by as much.
	maxAhead = 5 * time.Minute
	// maxNumberBits bounds a list's number: RFC 5280, section 5.2.3, allows 20 bytes.
	maxNumberBits = 160
)

// A Mark is how new the newest revocation list of one CA and one scope is that was in force here, so that an older one,
// which anybody can send who can send a list, does not take its place. A CA is a key here, as everywhere with lists.
type Mark struct {
	Key        []byte   // SubjectPublicKeyInfo of the CA
	Scope      Scope    // which of the CA's certificates the list is for
	Issuer     string   // its distinguished name in the list, for messages
	Source     string   // the list's file
	Number     *big.Int // of the list, nil if it has none
	ThisUpdate time.Time
}

// ID returns what tells Marks of different lists apart.
func (m Mark) ID() [32]byte { return m.Scope.id(m.Key) }

// olderThan compares by number where both lists have one, and by thisUpdate where the numbers are the same, as of a CA that
// never counts, or one has none.
func (m Mark) olderThan(other Mark) bool {
	if m.Number != nil && other.Number != nil && m.Number.Cmp(other.Number) != 0 {
		return m.Number.Cmp(other.Number) < 0
	}
	return m.ThisUpdate.Before(other.ThisUpdate)
}

// String returns which list it is.
func (m Mark) String() string {
	number := "without a number"
	if m.Number != nil {
		number = "number " + m.Number.String()
	}
	return fmt.Sprintf("%s of %s", number, stamp(m.ThisUpdate))
}

// Marks has one Mark for each CA and scope, by its ID.
type Marks map[[32]byte]Mark

// Add takes m if it is of another CA or scope than those there are, or of a newer list.
func (ms Marks) Add(m Mark) {
	key := m.ID()
	if old, ok := ms[key]; ok && m.olderThan(old) || !ok && !ms.room(m.Key) {
		return
	}
	ms[key] = m
}

// room reports whether there is a place for another list of a CA.
func (ms Marks) room(ca []byte) bool {
	of := 0
	for _, m := range ms {
		if bytes.Equal(m.Key, ca) {
			of++
		}
	}
	return len(ms) < MaxMarks && of < maxMarksOfCA
}

// Marks returns the newest list of each CA whose signature of one is known: those that are trusted, and those that stood
// in the path of a peer. Lists from the future do not count, for they would keep out all others until then.
func (t *Trust) Marks(now time.Time) Marks {
	ms := make(Marks)
	for _, l := range t.crls {
		if l.list.ThisUpdate.After(now.Add(maxAhead)) {
			continue
		}
		for _, key := range l.signers() {
			ms.Add(l.mark(key))
		}
	}
	return ms
}

// A Behind is a CA whose newest list of a scope is older than its Mark, or gone.
type Behind struct {
	Mark  Mark
	Found *Mark // nil: there is no list of that CA for those certificates
}

// String names cause and files.
func (b Behind) String() string {
	scope := ""
	if !b.Mark.Scope.IsAll() {
		scope = ", for " + b.Mark.Scope.String()
	}
	if b.Found == nil {
		return fmt.Sprintf("the revocation list of the CA %q, which was in force here (%s%s), is gone", b.Mark.Issuer,
			b.Mark.Source, scope)
	}
	return fmt.Sprintf("the revocation list %s of the CA %q (%v) is older than the one that was in force here (%v%s)",
		b.Found.Source, b.Mark.Issuer, b.Found, b.Mark, scope)
}

// setting is what cures it where it is as the CA meant it.
func (b Behind) setting() Setting {
	if b.Found == nil {
		return SettingForgetList
	}
	return SettingOlderList
}

// Behind returns the marks for which this trust has no list that is as new, in the order of the CAs' names.
func (t *Trust) Behind(ms Marks) []Behind {
	var all []Behind
	for _, m := range ms {
		if found, ok := t.successor(m); !ok {
			all = append(all, Behind{Mark: m, Found: found})
		}
	}
	slices.SortFunc(all, func(a, b Behind) int {
		return cmp.Or(cmp.Compare(a.Mark.Issuer, b.Mark.Issuer), slices.Compare(a.Mark.Key, b.Mark.Key),
			cmp.Compare(a.Mark.Scope.String(), b.Mark.Scope.String()))
	})
	return all
}

// successor returns the list that stands in the place of the mark's, nil if none does, and whether it is as new. That is
// the newest of the same scope. Where there is none, as when a CA begins to divide its list, none of those that may be
// for the same certificates may be older; their numbers are their own, so that the time counts.
func (t *Trust) successor(m Mark) (found *Mark, asNew bool) {
	pub, err := x509.ParsePKIXPublicKey(m.Key)
	if err != nil || acceptableKey(pub, maxCARSABits) != nil {
		return nil, false // it signed nothing that would be believed
	}
	ca := &x509.Certificate{RawSubjectPublicKeyInfo: m.Key, PublicKey: pub}
	var newest, oldest *Mark
	for _, l := range t.crls {
		if !l.signedBy(ca) || !l.scope.overlaps(m.Scope) {
			continue
		}
		if made := l.mark(m.Key); !l.scope.equal(m.Scope) {
			if oldest == nil || made.ThisUpdate.Before(oldest.ThisUpdate) {
				oldest = &made
			}
		} else if newest == nil || newest.olderThan(made) {
			newest = &made
		}
	}
	switch {
	case newest != nil:
		return newest, !newest.olderThan(m)
	case oldest != nil:
		return oldest, !oldest.ThisUpdate.Before(m.ThisUpdate)
	}
	return nil, false
}

// Demanding returns the same trust, by which the chains of each certificate fail whose CA's list is behind its mark.
func (t *Trust) Demanding(ms Marks) *Trust {
	next := *t
	next.behind = make(map[[32]byte][]Behind)
	for _, b := range t.Behind(ms) {
		key := sha256.Sum256(b.Mark.Key)
		next.behind[key] = append(next.behind[key], b)
	}
	return &next
}

// mark returns the Mark of a list that key has signed.
func (l *crl) mark(key []byte) Mark {
	m := Mark{Key: key, Scope: l.scope, Issuer: l.list.Issuer.String(), Source: l.source, ThisUpdate: l.list.ThisUpdate}
	if n := l.list.Number; n != nil && n.Sign() >= 0 && n.BitLen() <= maxNumberBits {
		m.Number = n
	}
	return m
}

// FromFuture returns the file of a list that was made more than 5 minutes after now, "" if there is none. Offered ones do not
// count, which are judged as they are read.
func (t *Trust) FromFuture(now time.Time) string {
	for _, l := range t.crls {
		if !l.isOffered() && l.list.ThisUpdate.After(now.Add(maxAhead)) {
			return l.source
		}
	}
	return ""
}

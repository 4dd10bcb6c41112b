package expiry

import (
	"cmp"
	"slices"
	"time"
)

// groups are the kinds of which one Item stands for all: whoever sees to the CAs sees to those between.
var groups = [][]string{{Leaf}, {Chain, CA}, {CRL}}

// Foremost returns at most one Item of leaf, of chain and ca, and of crl: the one of which most is to be said, and of those
// the one that ends first. A list of hours that is renewed in time does not stand before a CA that ends this week.
func Foremost(items []Item, now time.Time) (foremost []Item) {
	for _, kinds := range groups {
		var of []Item
		for _, i := range items {
			if slices.Contains(kinds, i.Kind) {
				of = append(of, i)
			}
		}
		if len(of) > 0 {
			foremost = append(foremost, slices.MinFunc(of, func(a, b Item) int {
				return cmp.Or(cmp.Compare(b.urgency(now), a.urgency(now)), a.NotAfter.Compare(b.NotAfter),
					cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
			}))
		}
	}
	return foremost
}

// urgency is 0 for an Item of which nothing is to be said, else the number of the nearest warning that is past, one more
// than all of them if it has ended.
func (i Item) urgency(now time.Time) (n int) {
	left := i.NotAfter.Sub(now)
	if left <= 0 {
		return len(warnings) + 1
	}
	for number, w := range warnings {
		if ahead := i.ahead(w); ahead != 0 && left <= ahead {
			n = number + 1
		}
	}
	return n
}

// ahead is how long before its end an Item is announced by one of the warnings, 0 if it is not.
func (i Item) ahead(warning time.Duration) time.Duration {
	switch life := i.NotAfter.Sub(i.NotBefore); {
	case warning == Day && life <= 3*Day:
		return life / 4
	case life <= 3*warning:
		return 0
	}
	return warning
}

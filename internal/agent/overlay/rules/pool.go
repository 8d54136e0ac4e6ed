package rules

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// pool is where a VIP or a port leads: to one of all, each as likely as any other, or, where there are parts, to a part by its
// weight and then to one of that part.
type pool[T comparable] struct {
	all []T // in order, within their part where there are parts
	// parts are the first so many of all, the next so many and so on: at least two, or none.
	parts []part
}

// part is so many of a pool, which have their weight of the sum of all weights between them.
type part struct{ size, weight uint32 }

// pooled are a service's endpoints and shares without what they do not depend on: order, repetitions, and shares that nobody
// can have.
func (s Service) pooled() pool[netip.Addr] {
	shares := make([]Share, 0, len(s.Shares))
	for _, share := range s.Shares {
		if share.Weight > 0 && len(share.Endpoints) > 0 {
			shares = append(shares, Share{Weight: share.Weight, Endpoints: orderedAddrs(share.Endpoints)})
		}
	}
	if len(s.Shares) == 0 {
		return pool[netip.Addr]{all: orderedAddrs(s.Endpoints)}
	}
	slices.SortFunc(shares, func(a, b Share) int {
		return cmp.Or(slices.CompareFunc(a.Endpoints, b.Endpoints, netip.Addr.Compare), cmp.Compare(a.Weight, b.Weight))
	})
	var p pool[netip.Addr]
	for _, share := range shares {
		p.all = append(p.all, share.Endpoints...)
		if len(shares) > 1 {
			p.parts = append(p.parts, part{uint32(len(share.Endpoints)), share.Weight})
		}
	}
	return p
}

// mapped has the same pool lead to other things.
func mapped[T, V comparable](p pool[T], each func(T) V) pool[V] {
	turned := pool[V]{parts: p.parts, all: make([]V, 0, len(p.all))}
	for _, one := range p.all {
		turned.all = append(turned.all, each(one))
	}
	return turned
}

func (p pool[T]) equal(other pool[T]) bool {
	return slices.Equal(p.all, other.all) && slices.Equal(p.parts, other.parts)
}

// has tells whether one may be led to.
func (p pool[T]) has(one T, compare func(T, T) int) bool {
	if len(p.parts) > 0 {
		return slices.Contains(p.all, one)
	}
	_, found := slices.BinarySearchFunc(p.all, one, compare)
	return found
}

// chances are how likely each is to be led to, of those from it on: the last one's is 1.
func (p pool[T]) chances() []float64 {
	parts := p.parts
	if len(parts) == 0 {
		parts = []part{{uint32(len(p.all)), 1}}
	}
	left := 0.0 // of all weights
	for _, part := range parts {
		left += float64(part.weight)
	}
	chances := make([]float64, 0, len(p.all))
	for i, part := range parts {
		weight := float64(part.weight)
		for n := part.size; n > 0; n-- {
			share := weight / float64(n)
			chances = append(chances, share/left)
			weight -= share
			left -= share
		}
		if i == len(parts)-1 && part.size > 0 {
			chances[len(chances)-1] = 1
		}
	}
	return chances
}

// chainOf is the chain that a pool calls for: one for the number of its endpoints, or for its parts; the zero chain where it is
// empty.
func chainOf[T comparable](kind string, p pool[T]) chain {
	switch {
	case len(p.all) == 0:
		return chain{}
	case len(p.parts) == 0:
		return slotsChain(kind, len(p.all))
	}
	var mix strings.Builder
	for _, part := range p.parts {
		mix.WriteString("-" + strconv.Itoa(int(part.size)) + "x" + strconv.Itoa(int(part.weight)))
	}
	name := mix.String()
	if len(name) > 64 {
		name = "-" + digest(name)
	}
	return chain{name: kind + "mix" + name, slots: uint32(len(p.all)), parts: p.parts}
}

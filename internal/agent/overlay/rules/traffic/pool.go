package traffic

import (
	"cmp"
	"net/netip"
	"slices"
)

// Pool is where a VIP or a port leads: to one of all, each as likely as any other, or, where there are parts, to a part by its
// weight and then to one of that part.
type Pool[T comparable] struct {
	All []T // in order, within their part where there are parts
	// Parts are the first so many of All, the next so many and so on: at least two, or none.
	Parts []Part
}

// Part is so many of a pool, which have their weight of the sum of all weights between them.
type Part struct{ Size, Weight uint32 }

// pooled are a service's endpoints and shares without what they do not depend on: order, repetitions, and shares that nobody
// can have.
func (s Service) pooled() Pool[netip.Addr] {
	shares := make([]Share, 0, len(s.Shares))
	for _, share := range s.Shares {
		if share.Weight > 0 && len(share.Endpoints) > 0 {
			shares = append(shares, Share{Weight: share.Weight, Endpoints: orderedAddrs(share.Endpoints)})
		}
	}
	if len(s.Shares) == 0 {
		return Pool[netip.Addr]{All: orderedAddrs(s.Endpoints)}
	}
	slices.SortFunc(shares, func(a, b Share) int {
		return cmp.Or(slices.CompareFunc(a.Endpoints, b.Endpoints, netip.Addr.Compare), cmp.Compare(a.Weight, b.Weight))
	})
	var p Pool[netip.Addr]
	for _, share := range shares {
		p.All = append(p.All, share.Endpoints...)
		if len(shares) > 1 {
			p.Parts = append(p.Parts, Part{uint32(len(share.Endpoints)), share.Weight})
		}
	}
	return p
}

// mapped has the same pool lead to other things.
func mapped[T, V comparable](p Pool[T], each func(T) V) Pool[V] {
	turned := Pool[V]{Parts: p.Parts, All: make([]V, 0, len(p.All))}
	for _, one := range p.All {
		turned.All = append(turned.All, each(one))
	}
	return turned
}

func (p Pool[T]) equal(other Pool[T]) bool {
	return slices.Equal(p.All, other.All) && slices.Equal(p.Parts, other.Parts)
}

// Has tells whether one may be led to.
func (p Pool[T]) Has(one T, compare func(T, T) int) bool {
	if len(p.Parts) > 0 {
		return slices.Contains(p.All, one)
	}
	_, found := slices.BinarySearchFunc(p.All, one, compare)
	return found
}

// Chances are how likely each is to be led to, of those from it on: the last one's is 1.
func (p Pool[T]) Chances() []float64 {
	parts := p.Parts
	if len(parts) == 0 {
		parts = []Part{{uint32(len(p.All)), 1}}
	}
	left := 0.0 // of all weights
	for _, part := range parts {
		left += float64(part.Weight)
	}
	chances := make([]float64, 0, len(p.All))
	for i, part := range parts {
		weight := float64(part.Weight)
		for n := part.Size; n > 0; n-- {
			share := weight / float64(n)
			chances = append(chances, share/left)
			weight -= share
			left -= share
		}
		if i == len(parts)-1 && part.Size > 0 {
			chances[len(chances)-1] = 1
		}
	}
	return chances
}

package iptables

import (
	"bytes"
	"context"
	"slices"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

// Backend puts facts into iptables, for kernels without nftables. A change costs what writing the
// changed chains does, and iptables write a table whole: some 100 ms at 5,000 services. It is for one caller at a time.
type Backend struct {
	shared *Shared
	wants  ruleset // and has, as far as we know
	// bridged is what render was told when it made them.
	bridged bool
}

// NewBackend is the backend of a host that has iptables. From now on shared keeps the jumps to the backend's chains too.
func NewBackend(shared *Shared) *Backend {
	shared.filters = true
	return &Backend{shared: shared}
}

// Replace makes all chains anew from facts, and removes those of ours that are none of theirs. The jumps to them are for Shared to
// make, after that.
func (b *Backend) Replace(ctx context.Context, f *traffic.Facts) error {
	bridged := b.shared.in.Bridged()
	wants := render(f, bridged)
	var input bytes.Buffer
	err := b.shared.in.Run(func() error {
		if err := b.shared.ensureChain(userChain); err != nil {
			return err
		}
		for _, table := range order {
			stands, err := b.shared.stands(table)
			if err != nil {
				return err
			}
			var gone []string
			if stands {
				if gone, err = b.shared.ourChains(table); err != nil {
					return err
				}
			}
			gone = slices.DeleteFunc(gone, func(name string) bool {
				_, stays := wants[table][name]
				return stays || name == userChain
			})
			input.Write(wants.replacing(table, gone))
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := b.shared.restore(ctx, input.Bytes()); err != nil {
		return err
	}
	b.wants, b.bridged = wants, bridged
	return nil
}

// Apply writes the chains that changed, those for all the facts being known. After an error the chains are not what the backend
// took them for, and have to be replaced.
func (b *Backend) Apply(ctx context.Context, f *traffic.Facts, _ traffic.Delta) error {
	wants := render(f, b.bridged)
	if input := b.wants.into(wants); len(input) > 0 {
		if err := b.shared.restore(ctx, input); err != nil {
			return err
		}
	}
	b.wants = wants
	return nil
}

// Intact counts the rules of every chain, and tells whether none is missing. A rule that someone put in the place of another is not seen.
func (b *Backend) Intact(ctx context.Context) (bool, error) {
	if b.shared.in.Bridged() != b.bridged {
		return false, nil
	}
	for _, table := range order {
		counts, err := b.shared.count(ctx, table)
		if err != nil {
			return false, err
		}
		delete(counts, userChain)
		if len(counts) != len(b.wants[table]) {
			return false, nil
		}
		for name, rules := range b.wants[table] {
			if n, stands := counts[name]; !stands || n != len(rules) {
				return false, nil
			}
		}
	}
	return true, nil
}

// Ours tells nothing: changes are made by programs that Shared has started, which knows them.
func (b *Backend) Ours(uint32) bool { return false }

// Owns tells nothing: no table of iptables is ours alone.
func (b *Backend) Owns(string) bool { return false }

// Clear removes nothing: all that a Backend makes goes with what is cleared of Shared.
func (b *Backend) Clear(context.Context) error { return nil }

// Close has nothing to let go of.
func (b *Backend) Close() {}

package rules

import (
	"bytes"
	"context"
	"maps"
	"slices"
)

// iptablesBackend puts facts into iptables, for kernels without nftables. A change costs what writing the
// changed chains does, and iptables write a table whole: some 100 ms at 5,000 services.
type iptablesBackend struct {
	base  *base
	wants ruleset // and has, as far as we know
	// bridged is what render was told when it made them.
	bridged bool
}

func newIPTables(b *base) *iptablesBackend {
	b.filters = true
	return &iptablesBackend{base: b}
}

// order is that of the tables: who may pass is in force before anybody is sent anywhere.
var order = []string{"raw", "filter", "nat"}

func (b *iptablesBackend) replace(ctx context.Context, f *facts) error {
	bridged := b.base.node.bridged()
	wants := render(f, bridged)
	var input bytes.Buffer
	err := b.base.node.run(func() error {
		if err := b.base.ensureChain(userChain); err != nil {
			return err
		}
		for _, table := range order {
			stands, err := b.base.stands(table)
			if err != nil {
				return err
			}
			var gone []string
			if stands {
				if gone, err = b.base.ourChains(table); err != nil {
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
	if err := b.base.restore(ctx, input.Bytes()); err != nil {
		return err
	}
	b.wants, b.bridged = wants, bridged
	return b.base.ensure(ctx)
}

func (b *iptablesBackend) apply(ctx context.Context, f *facts, _ delta) error {
	wants := render(f, b.bridged)
	if input := b.wants.into(wants); len(input) > 0 {
		if err := b.base.restore(ctx, input); err != nil {
			return b.replace(ctx, f)
		}
	}
	b.wants = wants
	return nil
}

// into writes the chains that differ.
func (r ruleset) into(wants ruleset) []byte {
	var input bytes.Buffer
	for _, table := range order {
		changed := maps.Clone(wants[table])
		maps.DeleteFunc(changed, func(name string, rules []string) bool {
			had, stood := r[table][name]
			return stood && slices.Equal(had, rules)
		})
		var gone []string
		for name := range r[table] {
			if _, stays := wants[table][name]; !stays {
				gone = append(gone, name)
			}
		}
		if len(changed)+len(gone) > 0 {
			slices.Sort(gone)
			input.Write(ruleset{table: changed}.replacing(table, gone))
		}
	}
	return input.Bytes()
}

// intact counts the rules of every chain. A rule that someone put in the place of another is not seen.
func (b *iptablesBackend) intact(ctx context.Context) (bool, error) {
	if b.base.node.bridged() != b.bridged {
		return false, nil
	}
	for _, table := range order {
		counts, err := b.base.count(ctx, table)
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

func (b *iptablesBackend) ours(uint32) bool { return false }

func (b *iptablesBackend) owns(string) bool { return false }

func (b *iptablesBackend) clear(context.Context) error { return nil } // all of it is base's

func (b *iptablesBackend) close() {}

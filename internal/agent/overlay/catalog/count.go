package catalog

// Count is how much a catalog holds.
type Count struct {
	// VIPs are services with a virtual address, Tasks those that new connections may be sent to, here and elsewhere.
	VIPs, Tasks int
}

// Count counts.
func (c *Catalog) Count() Count {
	c.mu.RLock()
	defer c.mu.RUnlock()
	n := Count{VIPs: len(c.byVIP)}
	for _, t := range c.tasks {
		if c.holds(t) && t.open() {
			n.Tasks++
		}
	}
	return n
}

package names

import (
	"net/netip"
	"strconv"
	"strings"
)

const reverseSuffix = ".in-addr.arpa."

// reverseZone returns the zone of the cluster's that a reverse name is in, if any. A zone is cut at
// whole octets, so a range is as many zones as it takes: 10.208.0.0/12 is 208.10.in-addr.arpa and
// fifteen more.
func reverseZone(name string, ranges []netip.Prefix) (string, bool) {
	rest, ok := strings.CutSuffix(name, reverseSuffix)
	if !ok {
		return "", false
	}
	var octets [4]byte
	for n := 1; n <= len(octets); n++ { // n octets are read, from the right
		dot := strings.LastIndexByte(rest, '.')
		octet, ok := parseOctet(rest[dot+1:])
		if !ok {
			return "", false
		}
		octets[n-1] = octet
		for _, r := range ranges {
			if (r.Bits()+7)/8 == n && r.Contains(netip.AddrFrom4(octets)) {
				return name[dot+1:], true
			}
		}
		if dot < 0 {
			return "", false
		}
		rest = rest[:dot]
	}
	return "", false
}

// findReverse looks up a name in a zone of the cluster's.
func (z *zone) findReverse(name, cut string, asker netip.Addr) (found, bool) {
	labels := strings.Split(strings.TrimSuffix(name, reverseSuffix), ".")
	var octets [4]byte
	if len(labels) > len(octets) {
		return found{}, false
	}
	for i, label := range labels {
		octet, ok := parseOctet(label)
		if !ok {
			return found{}, false
		}
		octets[len(labels)-1-i] = octet
	}
	var f found
	if name == cut {
		f.zone = cut
	}
	if len(labels) < len(octets) { // has addresses below it
		return f, true
	}
	called, ok := z.directory.Name(netip.AddrFrom4(octets), asker)
	f.name = called
	return f, ok || f.zone != ""
}

// parseOctet reads a number as reverse names write it.
func parseOctet(s string) (byte, bool) {
	n, err := strconv.ParseUint(s, 10, 8)
	return byte(n), err == nil && (s == "0" || s[0] != '0')
}

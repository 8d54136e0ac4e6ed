package wireguard

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// encode writes changes as a "set" of WireGuard's configuration protocol, without its first line and the
// empty one at its end. See https://www.wireguard.com/xplatform/.
func encode(d delta) string {
	var b strings.Builder
	line := func(key, value string) { b.WriteString(key + "=" + value + "\n") }
	if d.privateKey != nil {
		line("private_key", hex.EncodeToString(d.privateKey[:]))
	}
	if d.port != nil {
		line("listen_port", strconv.Itoa(*d.port))
	}
	for _, p := range d.peers {
		line("public_key", hex.EncodeToString(p.key[:]))
		switch p.what {
		case remove:
			line("remove", "true")
			continue
		case alter:
			line("update_only", "true")
		case add:
		}
		if p.endpoint.IsValid() {
			line("endpoint", p.endpoint.String())
		}
		for _, prefix := range p.lost {
			line("allowed_ip", "-"+prefix.String())
		}
		for _, prefix := range p.gained {
			line("allowed_ip", prefix.String())
		}
		// Last, as it may have something sent at once.
		if p.keepalive != nil {
			line("persistent_keepalive_interval", strconv.Itoa(int(*p.keepalive/time.Second)))
		}
	}
	return b.String()
}

// decode reads the answer to a "get". What it knows of each peer is in the order of the peers.
func decode(text string) (Config, []PeerStatus, error) {
	var c Config
	var status []PeerStatus
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if key == "public_key" {
			c.Peers, status = append(c.Peers, Peer{}), append(status, PeerStatus{})
		}
		err := c.decode(key, value)
		if len(c.Peers) > 0 {
			err = c.Peers[len(c.Peers)-1].decode(&status[len(status)-1], key, value)
		}
		if err != nil {
			return Config{}, nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	for i := range c.Peers {
		slices.SortFunc(c.Peers[i].AllowedIPs, netip.Prefix.Compare)
	}
	return c, status, nil
}

// decode takes a line about the device; it leaves out what nobody here asks for.
func (c *Config) decode(key, value string) (err error) {
	switch key {
	case "private_key":
		c.PrivateKey, err = decodeKey(value)
	case "listen_port":
		c.ListenPort, err = strconv.Atoi(value)
	}
	return err
}

// decode takes a line about a peer.
func (p *Peer) decode(status *PeerStatus, key, value string) (err error) {
	number := func(bits int) (n int64) {
		n, err = strconv.ParseInt(value, 10, bits)
		return n
	}
	switch key {
	case "public_key":
		p.PublicKey, err = decodeKey(value)
		status.PublicKey = p.PublicKey
	case "endpoint":
		p.Endpoint, err = netip.ParseAddrPort(value)
		p.Endpoint = netip.AddrPortFrom(p.Endpoint.Addr().Unmap(), p.Endpoint.Port())
		status.Endpoint = p.Endpoint
	case "allowed_ip":
		var prefix netip.Prefix
		prefix, err = netip.ParsePrefix(value)
		p.AllowedIPs = append(p.AllowedIPs, prefix)
	case "persistent_keepalive_interval":
		p.Keepalive = time.Duration(number(32)) * time.Second
	case "last_handshake_time_sec":
		if seconds := number(64); seconds != 0 {
			status.LastHandshake = time.Unix(seconds, 0)
		}
	case "last_handshake_time_nsec":
		if nanoseconds := number(64); nanoseconds != 0 {
			status.LastHandshake = status.LastHandshake.Add(time.Duration(nanoseconds))
		}
	case "rx_bytes":
		status.ReceivedBytes, err = strconv.ParseUint(value, 10, 64)
	case "tx_bytes":
		status.SentBytes, err = strconv.ParseUint(value, 10, 64)
	}
	return err
}

func decodeKey(text string) (wgtypes.Key, error) {
	raw, err := hex.DecodeString(text)
	if err != nil {
		return wgtypes.Key{}, err
	}
	return wgtypes.NewKey(raw)
}

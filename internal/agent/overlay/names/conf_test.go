package names

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func TestWhatContainersFindInTheirResolvConf(t *testing.T) {
	t.Parallel()
	for host, search := range map[string]string{
		"":                                      "warren.internal",
		"nameserver 9.9.9.9\noptions ndots:5\n": "warren.internal",
		"search corp.example lab.example.\n":    "warren.internal corp.example lab.example",
		"domain corp.example\n":                 "warren.internal corp.example",
		"search .\n":                            "warren.internal",
		"search Warren.Internal a\n":            "warren.internal a",
		"search a b c d e f g h\n":              "warren.internal a b c d e",
		"search " + strings.Repeat("a", 63) + strings.Repeat("."+strings.Repeat("b", 58), 3) + " c\n": "warren.internal c",
		"search bad..name " + strings.Repeat("x", 64) + " c\n":                                        "warren.internal c",
	} {
		path := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(path, []byte(host), 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := ContainerConf(addr("10.208.1.1"), path)
		want := "# Written by warren-agent.\nnameserver 10.208.1.1\nsearch " + search + "\noptions ndots:1\n"
		if err != nil || string(got) != want {
			t.Errorf("host has %q: %v\n%s", host, err, got)
		}
	}
	if got, err := ContainerConf(addr("10.208.1.1"), filepath.Join(t.TempDir(), "missing")); err != nil || !strings.Contains(string(got), "search warren.internal\n") {
		t.Errorf("the host has none: %v\n%s", err, got)
	}
	if _, err := ContainerConf(addr("10.208.1.1"), t.TempDir()); err == nil {
		t.Error("a folder is read")
	}
}

func TestWhoIsAskedOfTheHostsResolvers(t *testing.T) {
	t.Parallel()
	conf, err := dns.ClientConfigFromReader(strings.NewReader(
		"nameserver 10.208.1.1\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver elsewhere\nnameserver 127.0.0.53\n"))
	if err != nil {
		t.Fatal(err)
	}
	got := resolvers(conf, addr("10.208.1.1"))
	if want := []netip.Addr{addr("127.0.0.53"), addr("fe80::1%eth0")}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

package rules

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
)

func TestWhatOthersTakeAwayIsRestored(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		s := service("one", vip1, bAddr)
		s.Published = published(8080, 80, traffic.TCP)
		w.replace(s)
		w.node.run(w.variant.program, "-P", "FORWARD", "DROP")
		want := w.what(w.node)
		restored := make(chan struct{}, 16)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.rules.Watch(ctx, func() { restored <- struct{}{} }) }()
		defer func() {
			cancel()
			<-ended
		}()

		program, table := w.variant.program, ""
		if w.variant.backend == Nftables {
			text := w.node.run("nft", "list", "tables", "ip")
			table = regexp.MustCompile(`warren-[ab]`).FindString(text)
		}
		attacks := [][]string{
			{program, "-F"},
			{program, "-F", "FORWARD"},
			{"sh", "-c", program + " -F && " + program + " -X"},
			{program, "-D", "WARREN-FORWARD", "2"},
		}
		if w.variant.backend == Nftables {
			attacks = append(attacks,
				[]string{"nft", "delete table ip " + table},
				[]string{"nft", "flush chain ip warren-a prerouting; flush chain ip warren-b prerouting"},
				[]string{"nft", "flush map ip warren-a vips; flush map ip warren-b vips"})
		} else {
			attacks = append(attacks,
				[]string{program, "-t", "nat", "-F"},
				[]string{"sh", "-c", program + " -t nat -F && " + program + " -t nat -X"},
				[]string{program, "-t", "nat", "-F", "WARREN-VIPS"})
		}
		if program == "iptables-nft" {
			attacks = append(attacks, []string{"nft", "flush ruleset"})
		}
		for _, attack := range attacks {
			if attack[0] == "nft" {
				// Which of the two tables is in force may change up to the moment of the attack: what came before may
				// have been seen, and restored, as two things.
				one := regexp.MustCompile(`;.*`).ReplaceAllString(attack[1], "")
				either := regexp.MustCompile(`warren-[ab]`)
				attack = []string{"sh", "-c", "nft " + either.ReplaceAllString(one, "warren-a") + " || nft " + either.ReplaceAllString(one, "warren-b") +
					" || nft " + either.ReplaceAllString(one, "warren-a")}
			}
			w.node.run(attack...)
			select {
			case <-restored:
			case <-time.After(patience):
				t.Fatalf("%v: not restored:\n%s", attack, w.what(w.node))
			}
			if strings.Contains(attack[len(attack)-1], "flush ruleset") {
				w.node.run(program, "-P", "FORWARD", "DROP")
			}
			anyTable := strings.NewReplacer("warren-b", "warren-a")
			if now := anyTable.Replace(w.what(w.node)); !sameLines(now, anyTable.Replace(want)) {
				// -F and -X come one after the other and may be seen as two.
				select {
				case <-restored:
				case <-time.After(patience):
				}
				if now := anyTable.Replace(w.what(w.node)); !sameLines(now, anyTable.Replace(want)) {
					t.Errorf("%v: restored to\n%s\nwant\n%s", attack, now, want)
				}
			}
			w.a.reaches("tcp4", vip1+":80", aAddr, "b")
			w.outside.reaches("tcp4", near+":8080", far, "b")
			for len(restored) > 0 {
				<-restored
			}
		}
	})
}

// sameLines compares texts but for the order of lines, which for maps and for tables is the kernel's.
func sameLines(a, b string) bool {
	left := map[string]int{}
	for line := range strings.Lines(a) {
		left[strings.TrimSpace(line)]++
	}
	for line := range strings.Lines(b) {
		left[strings.TrimSpace(line)]--
	}
	for _, n := range left {
		if n != 0 {
			return false
		}
	}
	return true
}

func TestOurOwnChangesAreNotTakenForOthers(t *testing.T) {
	everywhere(t, func(t *testing.T, w *world) {
		services := 300 // more than are loaded in one transaction
		if w.variant.backend == IPTables {
			services = 100
		}
		set := crowd(w.nodeIs, services)
		w.node.must(w.rules.Replace(t.Context(), set))
		restored := make(chan struct{}, 16)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.rules.Watch(ctx, func() { restored <- struct{}{} }) }()
		for i := range 3 {
			w.node.must(w.rules.Replace(t.Context(), set))
			w.node.must(w.rules.Apply(t.Context(), traffic.Change{Services: []traffic.Service{service("one", vip1, addrs(aAddr, bAddr)[i%2].String())}}))
		}
		w.node.run(w.variant.program, "-F", "FORWARD") // news of this come after all others
		<-restored
		cancel()
		<-ended
		if len(restored) > 0 {
			t.Errorf("restored %d times more than was taken away", len(restored))
		}
	})
}

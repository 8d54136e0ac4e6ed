package catalog

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// sharedOut writes how the rules share a service's connections out: 10:2,3 90:4 for weights and addresses' last numbers.
func sharedOut(c *Catalog, service string) string {
	last := func(addrs []netip.Addr) string {
		var numbers []string
		for _, a := range addrs {
			numbers = append(numbers, strconv.Itoa(int(a.As4()[3])))
		}
		return strings.Join(numbers, ",")
	}
	all, _ := c.All()
	for _, s := range all.Services {
		if s.ID != service {
			continue
		}
		parts := []string{}
		if len(s.Endpoints) > 0 {
			parts = append(parts, last(s.Endpoints))
		}
		for _, share := range s.Shares {
			parts = append(parts, fmt.Sprintf("%d:%s", share.Weight, last(share.Endpoints)))
		}
		return strings.Join(parts, " ")
	}
	return "none"
}

func TestConnectionsAreSharedOutByRevision(t *testing.T) {
	for _, c := range []struct {
		name    string
		shares  string // revision:percent
		serving string // revision of each task, at addresses 2, 3, …; 0 of one that does not serve
		want    string
	}{
		{"without shares to all alike", "", "1 3 3", "2,3,4"},
		{"by percent", "1:90 3:10", "1 1 3", "90:2,3 10:4"},
		{"a share without a task goes to the others", "1:90 3:10", "1 1 0", "2,3"},
		{"also the larger one", "1:90 3:10", "0 0 3", "4"},
		{"a revision without a share gets none", "1:90 3:10", "1 2 3", "90:2 10:4"},
		{"unless nothing else serves", "1:90 3:10", "0 2 2", "3,4"},
		{"all to the old ones before a switch", "1:100", "1 1 3 3", "2,3"},
		{"all to the new ones after it", "1:0 3:100", "1 1 3 3", "4,5"},
		{"and to the old ones where none of them serves", "1:0 3:100", "1 2 0 0", "2"},
		{"back to the old ones where no new one serves", "3:100", "1 1 0 0", "2,3"},
		{"none where none serves", "1:90 3:10", "0 0", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			web := front("web", "10.224.0.1")
			for share := range strings.FieldsSeq(c.shares) {
				s := &warrenv1.RevisionShare{}
				fmt.Sscanf(share, "%d:%d", &s.Revision, &s.Percent)
				web.Shares = append(web.Shares, s)
			}
			all := &warrenv1.Endpoints{Full: true, Version: 1, Services: []*warrenv1.ServiceFront{web}}
			for i, of := range strings.Fields(c.serving) {
				e := endpoint(fmt.Sprint("t", i), "web", 2+i, of != "0")
				fmt.Sscan(of, &e.Revision)
				all.Tasks = append(all.Tasks, e)
			}
			catalog := New()
			catalog.Own(netip.MustParsePrefix("10.209.0.0/24"))
			catalog.Heed(all)
			if got := sharedOut(catalog, "web"); got != c.want {
				t.Errorf("shared out as %q, want %q", got, c.want)
			}
			// Names that mean tasks mean the same ones.
			named, _ := catalog.Service("web", netip.MustParseAddr("10.209.0.1"))
			if got, want := len(named.Tasks), strings.Count(c.want, ",")+len(strings.Fields(c.want)); got != want {
				t.Errorf("its name means %v", named.Tasks)
			}
		})
	}
}

// A node knows of its own tasks before any manager tells of them.
func TestANodesOwnTaskIsOfItsRevisionFromTheStart(t *testing.T) {
	c := New()
	web := front("web", "10.224.0.1")
	web.Shares = []*warrenv1.RevisionShare{{Revision: 1, Percent: 90}, {Revision: 2, Percent: 10}}
	told := endpoint("t", "web", 9, true)
	told.Revision = 1
	c.Heed(&warrenv1.Endpoints{Full: true, Version: 1, Services: []*warrenv1.ServiceFront{web}, Tasks: []*warrenv1.TaskEndpoint{told}})
	own := mine("n", "web")
	own.Revision = 2
	c.Place(own, nil, addr(2))
	c.Serve("n")
	if got := sharedOut(c, "web"); got != "90:9 10:2" {
		t.Errorf("shared out as %q", got)
	}
	// The canary's next step, and its end.
	web = front("web", "10.224.0.1")
	web.Shares = []*warrenv1.RevisionShare{{Revision: 1, Percent: 50}, {Revision: 2, Percent: 50}}
	c.Changes()
	c.Heed(&warrenv1.Endpoints{Version: 2, Services: []*warrenv1.ServiceFront{web}})
	if change, _, some := c.Changes(); !some || len(change.Services) != 1 || change.Services[0].Shares[0].Weight != 50 {
		t.Errorf("change %+v", change)
	}
	c.Heed(&warrenv1.Endpoints{Version: 3, Services: []*warrenv1.ServiceFront{front("web", "10.224.0.1")}})
	if got := sharedOut(c, "web"); got != "2,9" {
		t.Errorf("shared out as %q", got)
	}
}

func TestATaskOfAnEarlierAgentIsOfItsRevisionAlsoWhereNoManagerHasToldOfIt(t *testing.T) {
	c := New()
	c.Own(netip.PrefixFrom(addr(0), 24))
	web := front("web", "10.224.0.1")
	web.Shares = []*warrenv1.RevisionShare{{Revision: 1, Percent: 90}, {Revision: 2, Percent: 10}}
	c.Heed(&warrenv1.Endpoints{Full: true, Version: 1, Services: []*warrenv1.ServiceFront{web}})
	for revision, last := range map[uint64]int{1: 2, 2: 3} {
		own := mine(fmt.Sprint("n", revision), "web")
		own.Revision = revision
		c.Adopt(Earlier{Task: own, Addr: addr(last), Serving: true})
	}
	if got := sharedOut(c, "web"); got != "90:2 10:3" {
		t.Errorf("shared out as %q", got)
	}
}

package catalog

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/cuemby/warren/internal/agent/overlay/names"
	"github.com/cuemby/warren/internal/agent/overlay/rules/traffic"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func addr(last int) netip.Addr { return netip.AddrFrom4([4]byte{10, 208, 0, byte(last)}) }

func front(name, vip string, networks ...*warrenv1.NetworkAttachment) *warrenv1.ServiceFront {
	if len(networks) == 0 {
		networks = on("default")
	}
	return &warrenv1.ServiceFront{ServiceId: name, ServiceName: name, Vip: vip, Networks: networks}
}

func on(networks ...string) []*warrenv1.NetworkAttachment {
	var all []*warrenv1.NetworkAttachment
	for _, n := range networks {
		all = append(all, &warrenv1.NetworkAttachment{Network: n})
	}
	return all
}

func endpoint(id, service string, at int, serving bool) *warrenv1.TaskEndpoint {
	return &warrenv1.TaskEndpoint{TaskId: id, ServiceId: service, Slot: 1, NodeId: "n", Address: addr(at).String(), Serving: serving}
}

func mine(id, service string) *warrenv1.Task {
	return &warrenv1.Task{Meta: &warrenv1.Meta{Id: id}, ServiceId: service, Slot: 2}
}

func endpointsOf(c *Catalog, service string) []netip.Addr {
	all, _ := c.All()
	for _, s := range all.Services {
		if s.ID == service {
			return s.Endpoints
		}
	}
	return nil
}

func TestATaskOfThisNodeTakesConnectionsAsSoonAsItIsSeenTo(t *testing.T) {
	c := New()
	c.Heed(&warrenv1.Endpoints{Full: true, Version: 1, Services: []*warrenv1.ServiceFront{front("web", "10.224.0.1")}})
	c.Place(mine("t", "web"), nil, addr(2))
	if got := endpointsOf(c, "web"); len(got) != 0 {
		t.Errorf("endpoints %v before it serves", got)
	}
	c.Serve("t")
	if got := endpointsOf(c, "web"); !slices.Equal(got, []netip.Addr{addr(2)}) {
		t.Errorf("endpoints %v", got)
	}
	late := endpoint("t", "web", 2, false)
	c.Heed(&warrenv1.Endpoints{Version: 2, Tasks: []*warrenv1.TaskEndpoint{late}})
	if got := endpointsOf(c, "web"); len(got) != 1 {
		t.Errorf("endpoints %v after a manager has told of it, and not yet that it serves", got)
	}
	withdrawn := endpoint("t", "web", 2, false)
	withdrawn.Withdrawn = true
	c.Heed(&warrenv1.Endpoints{Version: 3, Tasks: []*warrenv1.TaskEndpoint{withdrawn}})
	if got := endpointsOf(c, "web"); len(got) != 0 {
		t.Errorf("endpoints %v although it is to stop", got)
	}
	c.Withdraw("t")
	c.Release("t")
	if change, _, some := c.Changes(); !some || !slices.Equal(change.RemovedTasks, []netip.Addr{addr(2)}) {
		t.Errorf("change %+v", change)
	}
}

func TestAnAddressIsItsLatestHolders(t *testing.T) {
	c := New()
	c.Heed(&warrenv1.Endpoints{Full: true, Version: 1, Services: []*warrenv1.ServiceFront{front("web", ""), front("db", "")}, Tasks: []*warrenv1.TaskEndpoint{endpoint("old", "web", 5, true)}})
	c.Heed(&warrenv1.Endpoints{Version: 2, Tasks: []*warrenv1.TaskEndpoint{endpoint("new", "db", 5, true)}})
	if web, db := endpointsOf(c, "web"), endpointsOf(c, "db"); len(web) != 0 || len(db) != 1 {
		t.Errorf("web %v, db %v", web, db)
	}
	c.Changes()
	c.Heed(&warrenv1.Endpoints{Version: 3, RemovedTasks: []string{"old"}})
	if change, _, _ := c.Changes(); len(change.RemovedTasks) != 0 {
		t.Errorf("the new holder's connections would be cut: %+v", change)
	}
}

func TestAFullSetThatComesInPiecesReplacesWhatIsNotInIt(t *testing.T) {
	c := New()
	c.Heed(&warrenv1.Endpoints{Full: true, Version: 7, Services: []*warrenv1.ServiceFront{front("old", "10.224.0.1")}, Tasks: []*warrenv1.TaskEndpoint{endpoint("o", "old", 3, true)}})
	c.Heed(&warrenv1.Endpoints{Full: true, More: true, Version: 8, Services: []*warrenv1.ServiceFront{front("web", "10.224.0.2")}})
	if c.Version() != 7 || endpointsOf(c, "old") == nil {
		t.Errorf("half a set counts: version %d", c.Version())
	}
	c.Heed(&warrenv1.Endpoints{Version: 8, Tasks: []*warrenv1.TaskEndpoint{endpoint("w", "web", 4, true)}})
	if c.Version() != 8 || endpointsOf(c, "old") != nil || len(endpointsOf(c, "web")) != 1 {
		t.Errorf("version %d, old %v, web %v", c.Version(), endpointsOf(c, "old"), endpointsOf(c, "web"))
	}
}

func TestNamesAreForThoseWhoShareANetwork(t *testing.T) {
	c := New()
	c.Own(netip.MustParsePrefix("10.209.0.0/24"))
	db := front("db", "10.224.0.2", &warrenv1.NetworkAttachment{Network: "back", Aliases: []string{"postgres"}})
	c.Heed(&warrenv1.Endpoints{Full: true, Services: []*warrenv1.ServiceFront{
		front("web", "10.224.0.1", on("default", "back")...), front("other", "10.224.0.3"), db,
	}, Tasks: []*warrenv1.TaskEndpoint{endpoint("w", "web", 2, true), endpoint("o", "other", 3, true), endpoint("d", "db", 4, true)}})
	for _, q := range []struct {
		name  string
		asker int
		found bool
	}{
		{"db", 2, true}, {"postgres", 2, true}, {"db", 3, false}, {"postgres", 3, false}, {"other", 4, false}, {"web", 4, true}, {"web", 3, true},
		{"web", 99, false}, // nobody that is known
		{"none", 2, false},
	} {
		s, found := c.Service(q.name, addr(q.asker))
		if found != q.found {
			t.Errorf("%s asked by %v: found %v", q.name, addr(q.asker), found)
		}
		if found && q.name == "postgres" && (s.Name != "db" || s.VIP != netip.MustParseAddr("10.224.0.2") || !slices.Equal(s.Tasks, []names.Task{{Slot: 1, Name: "db.1", Addr: addr(4)}})) {
			t.Errorf("postgres: %+v", s)
		}
	}
	if _, found := c.Service("db", netip.MustParseAddr("10.209.0.1")); !found {
		t.Error("the node itself does not see db")
	}
	if name, ok := c.Name(netip.MustParseAddr("10.224.0.2"), addr(2)); !ok || name != "db" {
		t.Errorf("the address of db is called %q", name)
	}
	if name, ok := c.Name(addr(4), addr(2)); !ok || name != "db.1" {
		t.Errorf("the address of its task is called %q", name)
	}
	if name, ok := c.Name(addr(4), addr(3)); ok {
		t.Errorf("a stranger is told %q", name)
	}
}

func TestATaskOfAGlobalServiceIsCalledByItsNode(t *testing.T) {
	c := New()
	c.Own(netip.MustParsePrefix("10.209.0.0/24"))
	e := endpoint("t", "log", 7, true)
	e.Slot, e.NodeId = 0, "id"
	c.Heed(&warrenv1.Endpoints{Full: true, Services: []*warrenv1.ServiceFront{front("log", "10.224.0.1")}, Tasks: []*warrenv1.TaskEndpoint{e}})
	for want, hostnames := range map[string]map[string]string{"log.id": {}, "log.node-7": {"id": "node-7"}} {
		c.Hostnames(hostnames)
		if name, _ := c.Name(addr(7), netip.MustParseAddr("10.209.0.1")); name != want {
			t.Errorf("called %q instead of %q", name, want)
		}
	}
}

func TestPortsOfTheTasksOwnNodesHaveNamesAsThoseOfAllNodesHave(t *testing.T) {
	c := New()
	c.Own(netip.MustParsePrefix("10.209.0.0/24"))
	web := front("web", "")
	web.Ports = []*warrenv1.PublishedPort{{Protocol: warrenv1.Protocol_PROTOCOL_TCP, Published: 80, Target: 8080, Name: "http"}}
	web.HostPorts = []*warrenv1.PortSpec{
		{Published: 90, Target: 8080, Name: "http"}, {Published: 90, Target: 53, Protocol: warrenv1.Protocol_PROTOCOL_UDP}, {Target: 9100, Name: "metrics"},
	}
	c.Heed(&warrenv1.Endpoints{Full: true, Services: []*warrenv1.ServiceFront{web}})
	s, _ := c.Service("web", netip.MustParseAddr("10.209.0.1"))
	want := []names.Port{{Name: "http", Protocol: "tcp", Target: 8080}, {Protocol: "udp", Target: 53}, {Name: "metrics", Protocol: "tcp", Target: 9100}}
	if !slices.Equal(s.Ports, want) {
		t.Errorf("got %v", s.Ports)
	}
	if ports, _ := c.Published(); !slices.Equal(ports, []Port{{warrenv1.Protocol_PROTOCOL_TCP, 80}}) {
		t.Errorf("without a task here %v are open", ports)
	}
}

func TestATakenPortLeadsNowhere(t *testing.T) {
	c := New()
	web := front("web", "10.224.0.1")
	web.Ports = []*warrenv1.PublishedPort{{Protocol: warrenv1.Protocol_PROTOCOL_TCP, Published: 80, Target: 8080}, {Protocol: warrenv1.Protocol_PROTOCOL_UDP, Published: 53, Target: 53}}
	c.Heed(&warrenv1.Endpoints{Full: true, Services: []*warrenv1.ServiceFront{web}})
	c.Place(mine("t", "web"), []*warrenv1.PortSpec{{Target: 9, Published: 99}}, addr(2))
	c.Serve("t")
	if got := c.Declared("t"); !slices.Equal(got, []Port{{1, 9}, {1, 8080}, {2, 53}}) {
		t.Errorf("declared %v", got)
	}
	if got, changed := c.Published(); !changed || !slices.Equal(got, []Port{{1, 80}, {1, 99}, {2, 53}}) {
		t.Errorf("published %v", got)
	}
	if _, changed := c.Published(); changed {
		t.Error("they are told to have changed again")
	}
	c.Taken([]Port{{1, 80}, {1, 99}})
	all, _ := c.All()
	if got := all.Services[0].Published; !slices.Equal(got, []traffic.Published{{Port: 53, Target: 53, Protocol: traffic.UDP}}) {
		t.Errorf("open %v", got)
	}
	if got := all.Tasks[0].HostPorts; len(got) != 0 {
		t.Errorf("the node's own %v", got)
	}
}

// TestChangesAddUpToAll: whoever applies every change to what was there knows the same as who asks for all.
func TestChangesAddUpToAll(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := New()
		services, tasks := map[string]traffic.Service{}, map[netip.Addr]traffic.Task{}
		ids := rapid.SampledFrom([]string{"a", "b", "c"})
		taskIDs := rapid.SampledFrom([]string{"t1", "t2", "t3", "t4"})
		at := rapid.IntRange(2, 6)
		for step := range rapid.IntRange(1, 40).Draw(rt, "steps") {
			switch rapid.IntRange(0, 7).Draw(rt, "what") {
			case 0, 1:
				e := &warrenv1.Endpoints{Version: uint64(step), Full: rapid.IntRange(0, 5).Draw(rt, "full") == 0}
				for range rapid.IntRange(0, 2).Draw(rt, "fronts") {
					f := front(ids.Draw(rt, "service"), fmt.Sprintf("10.224.0.%d", rapid.IntRange(1, 3).Draw(rt, "vip")), on(rapid.SampledFrom([]string{"x", "y"}).Draw(rt, "network"))...)
					for _, revision := range rapid.SampledFrom([][]uint64{nil, {1}, {1, 2}}).Draw(rt, "shares") {
						f.Shares = append(f.Shares, &warrenv1.RevisionShare{Revision: revision, Percent: 50})
					}
					e.Services = append(e.Services, f)
				}
				for range rapid.IntRange(0, 3).Draw(rt, "endpoints") {
					id := taskIDs.Draw(rt, "task")
					told := endpoint(id, "a", at.Draw(rt, "addr"), rapid.Bool().Draw(rt, "serving"))
					told.Revision = rapid.Uint64Range(1, 3).Draw(rt, "revision")
					e.Tasks = append(e.Tasks, told)
				}
				c.Heed(e)
			case 2:
				c.Heed(&warrenv1.Endpoints{Version: uint64(step), RemovedServices: []string{ids.Draw(rt, "gone")}, RemovedTasks: []string{taskIDs.Draw(rt, "gone task")}})
			case 3:
				c.Place(mine(taskIDs.Draw(rt, "mine"), "a"), nil, addr(at.Draw(rt, "place")))
			case 4:
				c.Serve(taskIDs.Draw(rt, "serve"))
			case 5:
				c.Withdraw(taskIDs.Draw(rt, "withdraw"))
			case 6:
				c.Release(taskIDs.Draw(rt, "release"))
			case 7:
				change, _, _ := c.Changes()
				follow(services, tasks, change)
			}
		}
		change, _, _ := c.Changes()
		follow(services, tasks, change)
		all, _ := c.All()
		wantServices, wantTasks := map[string]traffic.Service{}, map[netip.Addr]traffic.Task{}
		follow(wantServices, wantTasks, traffic.Change{Services: all.Services, Tasks: all.Tasks})
		compare := []cmp.Option{cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmpopts.EquateEmpty()}
		if diff := cmp.Diff(wantServices, services, compare...); diff != "" {
			rt.Fatalf("services (-all +changes):\n%s", diff)
		}
		if diff := cmp.Diff(wantTasks, tasks, compare...); diff != "" {
			rt.Fatalf("tasks (-all +changes):\n%s", diff)
		}
		for a := range tasks {
			if id := c.byAddr[a]; c.tasks[id] == nil {
				rt.Fatalf("%s is nobody's", a)
			}
		}
	})
}

func follow(services map[string]traffic.Service, tasks map[netip.Addr]traffic.Task, change traffic.Change) {
	for _, id := range change.RemovedServices {
		delete(services, id)
	}
	for _, s := range change.Services {
		services[s.ID] = s
	}
	for _, a := range change.RemovedTasks {
		delete(tasks, a)
	}
	for _, t := range change.Tasks {
		tasks[t.Addr] = t
	}
}

func TestOfAddressesOfItsOwnANodeBelievesOnlyItself(t *testing.T) {
	c := New()
	c.Own(netip.MustParsePrefix("10.208.0.0/24"))
	c.Heed(&warrenv1.Endpoints{
		Full: true, Version: 1, Services: []*warrenv1.ServiceFront{front("web", "10.224.0.1")},
		Tasks: []*warrenv1.TaskEndpoint{endpoint("gone", "web", 2, true), endpoint("stays", "web", 3, true)},
	})
	if all, _ := c.All(); len(all.Tasks) != 0 || len(endpointsOf(c, "web")) != 0 {
		t.Errorf("rules of tasks that are not here: %+v", all)
	}
	if told, _ := c.Unrecorded(); len(told.GetTasks()) != 2 {
		t.Errorf("of what managers tell, %v is recorded", told.GetTasks())
	}

	// Its new holder is not disturbed by news of the old one.
	c.Place(mine("new", "web"), nil, addr(2))
	c.Serve("new")
	c.Heed(&warrenv1.Endpoints{Version: 2, Tasks: []*warrenv1.TaskEndpoint{endpoint("gone", "web", 2, true)}})
	if got := endpointsOf(c, "web"); !slices.Equal(got, []netip.Addr{addr(2)}) {
		t.Errorf("endpoints %v", got)
	}

	// When the node is given another subnet, the old one's addresses are others'.
	c.Own(netip.MustParsePrefix("10.208.7.0/24"))
	if got := endpointsOf(c, "web"); !slices.Equal(got, []netip.Addr{addr(2), addr(3)}) {
		t.Errorf("endpoints %v", got)
	}
}

// earlier is a task of web; the one that managers have told nothing of has a port of the node.
func earlier(id string, at netip.Addr, serving bool) Earlier {
	e := Earlier{Task: mine(id, "web"), Addr: at, Serving: serving}
	if id == "untold" {
		e.HostPorts = []*warrenv1.PortSpec{{Target: 9, Published: 99}}
	}
	return e
}

func TestOnlyWhatIsNewIsRecorded(t *testing.T) {
	c := New()
	full := func() *warrenv1.Endpoints {
		return &warrenv1.Endpoints{
			Full: true, Version: 1, Services: []*warrenv1.ServiceFront{front("web", "10.224.0.1"), front("db", "10.224.0.2")},
			Tasks: []*warrenv1.TaskEndpoint{endpoint("a", "web", 2, true), endpoint("b", "db", 3, true)},
		}
	}
	c.Heed(full())
	if news, some := c.Unrecorded(); !some || news.GetVersion() != 1 || len(news.GetServices()) != 2 || len(news.GetTasks()) != 2 {
		t.Errorf("at first %v, %v", news, some)
	}
	c.Heed(full())
	if news, some := c.Unrecorded(); some {
		t.Errorf("told the same again, %v", news)
	}
	changed := endpoint("a", "web", 2, false)
	c.Heed(&warrenv1.Endpoints{Version: 2, Tasks: []*warrenv1.TaskEndpoint{changed}, RemovedServices: []string{"db"}, RemovedTasks: []string{"b"}})
	want := &warrenv1.Endpoints{Version: 2, Tasks: []*warrenv1.TaskEndpoint{changed}, RemovedServices: []string{"db"}, RemovedTasks: []string{"b"}}
	news, _ := c.Unrecorded()
	if !proto.Equal(news, want) {
		t.Errorf("of a change %v", news)
	}
	c.NotRecorded(news)
	if again, _ := c.Unrecorded(); !proto.Equal(again, want) {
		t.Errorf("when that failed %v", again)
	}
}

func TestTasksOfAnEarlierAgentGoOnToTakeConnections(t *testing.T) {
	c := New()
	c.Own(netip.MustParsePrefix("10.208.0.0/24"))
	c.Heed(&warrenv1.Endpoints{
		Full: true, Version: 1, Services: []*warrenv1.ServiceFront{front("web", "10.224.0.1")},
		Tasks: []*warrenv1.TaskEndpoint{
			endpoint("serves", "web", 2, true), endpoint("starts", "web", 3, false),
			endpoint("moved", "web", 4, true), endpoint("died", "web", 5, true),
		},
	})
	c.Withdraw("died")
	c.Withdraw("died untold")
	c.Adopt(
		earlier("serves", addr(2), false), earlier("starts", addr(3), false), earlier("moved", addr(9), true), earlier("died", addr(5), true),
		earlier("died untold", addr(7), true), earlier("untold", addr(6), true), earlier("elsewhere", netip.MustParseAddr("10.208.9.2"), true),
	)
	if got := endpointsOf(c, "web"); !slices.Equal(got, []netip.Addr{addr(2), addr(6), addr(9)}) {
		t.Errorf("endpoints %v", got)
	}
	all, _ := c.All()
	want := []traffic.Task{
		{Addr: addr(2), Local: true, Networks: []string{"default"}}, {Addr: addr(3), Local: true, Networks: []string{"default"}},
		{Addr: addr(6), Local: true, Networks: []string{"default"}, HostPorts: []traffic.Published{{Port: 99, Target: 9, Protocol: traffic.TCP}}},
		{Addr: addr(9), Local: true, Networks: []string{"default"}},
	}
	if diff := cmp.Diff(want, all.Tasks, cmpopts.EquateComparable(netip.Addr{}), cmpopts.SortSlices(func(a, b traffic.Task) bool { return a.Addr.Less(b.Addr) })); diff != "" {
		t.Errorf("tasks (-want +got):\n%s", diff)
	}

	// What then is seen of them counts.
	c.Place(mine("serves", "web"), nil, addr(2))
	if got := endpointsOf(c, "web"); len(got) != 3 {
		t.Errorf("endpoints %v of a task that is taken up again", got)
	}
	for _, id := range []string{"serves", "moved", "untold"} {
		c.Withdraw(id)
	}
	c.Release("starts")
	if got := endpointsOf(c, "web"); len(got) != 0 {
		t.Errorf("endpoints %v", got)
	}
}

// A node that was cut off goes by what it sees of its own tasks. What a manager has given up meanwhile is out of rotation with
// the first news.
func TestATaskThatWasReplacedWhileTheNodeWasCutOffIsOutOfRotationAtOnce(t *testing.T) {
	lost := &warrenv1.TaskEndpoint{TaskId: "t", ServiceId: "web", Slot: 2, NodeId: "n", Address: addr(2).String(), Withdrawn: true}
	unknown := &warrenv1.TaskEndpoint{TaskId: "t", ServiceId: "web", Slot: 2, NodeId: "n", Withdrawn: true}
	for name, back := range map[string]struct {
		told bool // a manager had told of the task before
		news []*warrenv1.TaskEndpoint
	}{
		"as managers say":                            {true, []*warrenv1.TaskEndpoint{lost}},
		"though they never knew that it serves":      {false, []*warrenv1.TaskEndpoint{lost}},
		"though they never knew its address":         {false, []*warrenv1.TaskEndpoint{unknown}},
		"since they know nothing of it any more":     {true, nil},
		"and its replacement, which has come to it,": {true, []*warrenv1.TaskEndpoint{lost, endpoint("r", "web", 9, true)}},
	} {
		t.Run(name, func(t *testing.T) {
			c := New()
			c.Own(netip.MustParsePrefix("10.208.0.0/29"))
			all := &warrenv1.Endpoints{Full: true, Version: 1, Services: []*warrenv1.ServiceFront{front("web", "10.224.0.1")}}
			if back.told {
				all.Tasks = append(all.Tasks, endpoint("t", "web", 2, true))
			}
			c.Heed(all)
			c.Place(mine("t", "web"), nil, addr(2))
			c.Serve("t")
			if got := endpointsOf(c, "web"); !slices.Equal(got, []netip.Addr{addr(2)}) {
				t.Fatalf("endpoints %v while it is cut off", got)
			}
			c.Heed(&warrenv1.Endpoints{Full: true, Version: 9, Services: all.Services, Tasks: back.news})
			for _, got := range endpointsOf(c, "web") {
				if got == addr(2) {
					t.Error("it is in rotation still")
				}
			}
			c.Serve("t") // a probe that ends well meanwhile changes nothing
			if got := endpointsOf(c, "web"); slices.Contains(got, addr(2)) {
				t.Errorf("endpoints %v", got)
			}
		})
	}
}

func TestATaskThatManagersHaveNotHeardOfYetStaysInRotation(t *testing.T) {
	c := New()
	all := &warrenv1.Endpoints{Full: true, Version: 1, Services: []*warrenv1.ServiceFront{front("web", "10.224.0.1")}}
	c.Heed(all)
	c.Place(mine("t", "web"), nil, addr(2))
	c.Serve("t")
	c.Heed(&warrenv1.Endpoints{Full: true, Version: 2, Services: all.Services})
	if got := endpointsOf(c, "web"); !slices.Equal(got, []netip.Addr{addr(2)}) {
		t.Errorf("endpoints %v", got)
	}
}

package api_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

func network(name string) *warrenv1.Network {
	return &warrenv1.Network{Meta: &warrenv1.Meta{Id: name}, Spec: &warrenv1.NetworkSpec{Name: name}}
}

// on puts a service on networks.
func on(networks ...string) func(*warrenv1.ServiceSpec) {
	return func(s *warrenv1.ServiceSpec) {
		for _, n := range networks {
			s.Networks = append(s.Networks, &warrenv1.NetworkAttachment{Network: n})
		}
	}
}

// ingress and hostPort publish a port; 0 leaves it to Warren.
func ingress(published, target uint32) func(*warrenv1.ServiceSpec) {
	return func(s *warrenv1.ServiceSpec) {
		if s.Endpoint == nil {
			s.Endpoint = &warrenv1.EndpointSpec{}
		}
		s.Endpoint.Ports = append(s.Endpoint.Ports, &warrenv1.PortSpec{Published: published, Target: target})
	}
}

func hostPort(published, target uint32) func(*warrenv1.ServiceSpec) {
	return func(s *warrenv1.ServiceSpec) {
		s.Task.HostPorts = append(s.Task.HostPorts, &warrenv1.PortSpec{Published: published, Target: target})
	}
}

func (s *served) create(name string, edits ...func(*warrenv1.ServiceSpec)) (*warrenv1.Service, error) {
	res, err := call(s, s.services.CreateService, &warrenv1.CreateServiceRequest{Spec: spec(name, edits...)})
	return res.GetService(), err
}

func (s *served) created(name string, edits ...func(*warrenv1.ServiceSpec)) *warrenv1.Service {
	s.t.Helper()
	service, err := s.create(name, edits...)
	if err != nil {
		s.t.Fatal(err)
	}
	return service
}

func TestNetworksAreMadeListedAndRemoved(t *testing.T) {
	s := serve(t) // as a cluster from before there were networks: without the default one
	for _, name := range []string{"zoo", "back"} {
		made := must(s, s.networks.CreateNetwork, &warrenv1.CreateNetworkRequest{Spec: &warrenv1.NetworkSpec{Name: name, Labels: map[string]string{"a": "b"}}}).GetNetwork()
		if made.GetMeta().GetId() != name || made.GetMeta().GetVersion() == 0 || made.GetSpec().GetLabels()["a"] != "b" {
			t.Errorf("made %v", made)
		}
	}
	for name, want := range map[string]string{"zoo": "already exists", "default": "already exists", "host": "choose another name", "none": "choose another name", "No": "DNS label"} {
		_, err := call(s, s.networks.CreateNetwork, &warrenv1.CreateNetworkRequest{Spec: &warrenv1.NetworkSpec{Name: name}})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.created("web", on("zoo", "back"))
	s.created("plain")
	s.created("bare", func(s *warrenv1.ServiceSpec) { s.Task.Network = warrenv1.NetworkMode_NETWORK_MODE_HOST })
	var got []string
	for token := ""; ; {
		page := must(s, s.networks.ListNetworks, &warrenv1.ListNetworksRequest{PageSize: 2, PageToken: token})
		for _, e := range page.GetNetworks() {
			got = append(got, fmt.Sprint(e.GetNetwork().GetSpec().GetName(), e.GetServiceCount(), e.GetServices()))
		}
		if token = page.GetNextPageToken(); token == "" {
			break
		}
	}
	if want := []string{"back1 []", "default1 []", "zoo1 []"}; !slices.Equal(got, want) {
		t.Errorf("listed %q", got)
	}
	entry := must(s, s.networks.GetNetwork, &warrenv1.GetNetworkRequest{Ref: "default"}).GetEntry()
	if !slices.Equal(entry.GetServices(), []string{"plain"}) {
		t.Errorf("on the default network are %v", entry)
	}
	_, err := call(s, s.networks.DeleteNetwork, &warrenv1.DeleteNetworkRequest{Ref: "zoo"})
	refused(t, err, connect.CodeFailedPrecondition, "service web is on it", "--network-rm zoo")
	_, err = call(s, s.networks.DeleteNetwork, &warrenv1.DeleteNetworkRequest{Ref: "default"})
	refused(t, err, connect.CodeFailedPrecondition, "the network default cannot be removed")
	_, err = call(s, s.networks.DeleteNetwork, &warrenv1.DeleteNetworkRequest{Ref: "nope"})
	refused(t, err, connect.CodeNotFound, "warrenctl network ls")
	must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Spec: spec("web", on("back"))})
	must(s, s.networks.DeleteNetwork, &warrenv1.DeleteNetworkRequest{Ref: "zoo"})
	if s.store.Snapshot().Network("zoo") != nil {
		t.Error("it is still there")
	}
}

func TestANetworkIsNotRemovedWhileAServiceComesOnIt(t *testing.T) {
	s := serve(t, network("shop"))
	s.proposer.before = func() {
		must(s, s.networks.DeleteNetwork, &warrenv1.DeleteNetworkRequest{Ref: "shop"})
	}
	_, err := s.create("web", on("shop"))
	refused(t, err, connect.CodeInvalidArgument, "there is no network shop: there are default", "warrenctl network create shop")

	s = serve(t, network("shop"))
	s.proposer.before = func() { s.created("web", on("shop")) }
	_, err = call(s, s.networks.DeleteNetwork, &warrenv1.DeleteNetworkRequest{Ref: "shop"})
	refused(t, err, connect.CodeFailedPrecondition, "web")

	s = serve(t, network("shop"))
	s.created("web")
	s.proposer.before = func() {
		must(s, s.networks.DeleteNetwork, &warrenv1.DeleteNetworkRequest{Ref: "shop"})
	}
	_, err = call(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Spec: spec("web", on("shop"))})
	refused(t, err, connect.CodeInvalidArgument, "there is no network shop")
}

func TestServicesOnOneNetworkDoNotGetIntoEachOthersWay(t *testing.T) {
	s := serve(t, network("default"), network("shop"))
	version := func(name string) uint64 { return s.store.Snapshot().Network(name).GetMeta().GetVersion() }
	was := version("default")
	s.created("plain")
	s.created("named", on("default"))
	if version("default") != was {
		t.Error("the default network was touched")
	}
	s.created("web", on("shop"))
	was = version("shop")
	must(s, s.services.ScaleService, &warrenv1.ScaleServiceRequest{Ref: "web", Replicas: 5})
	if version("shop") != was {
		t.Error("a network was touched that its service was on already")
	}
}

func TestHowAServiceIsConnectedIsChecked(t *testing.T) {
	mode := func(m warrenv1.NetworkMode) func(*warrenv1.ServiceSpec) {
		return func(s *warrenv1.ServiceSpec) { s.Task.Network = m }
	}
	host, none := mode(warrenv1.NetworkMode_NETWORK_MODE_HOST), mode(warrenv1.NetworkMode_NETWORK_MODE_NONE)
	dnsrr := func(s *warrenv1.ServiceSpec) {
		if s.Endpoint == nil {
			s.Endpoint = &warrenv1.EndpointSpec{}
		}
		s.Endpoint.Mode = warrenv1.EndpointMode_ENDPOINT_MODE_DNSRR
	}
	aliases := func(names ...string) func(*warrenv1.ServiceSpec) {
		return func(s *warrenv1.ServiceSpec) { s.Networks[0].Aliases = names }
	}
	named := func(s *warrenv1.ServiceSpec) {
		for _, p := range append(s.GetEndpoint().GetPorts(), s.GetTask().GetHostPorts()...) {
			p.Name = "http"
		}
	}
	lastUDP := func(s *warrenv1.ServiceSpec) {
		s.Endpoint.Ports[len(s.Endpoint.Ports)-1].Protocol = warrenv1.Protocol_PROTOCOL_UDP
	}
	type edits = []func(*warrenv1.ServiceSpec)
	for _, c := range []struct {
		name  string
		edits edits
		want  string // empty where it is in order
	}{
		{"networks twice", edits{on("shop", "shop")}, "spec.networks[1].network: the network shop is given twice"},
		{"unknown network", edits{on("shop", "nope")}, "spec.networks[1].network: there is no network nope: there are default, shop"},
		{"networks on the host's", edits{host, on("shop")}, "spec.networks[0]: a service whose tasks have network mode host is on no network"},
		{"networks without one", edits{none, on("shop")}, "mode none"},
		{"ports on the host's", edits{host, ingress(80, 80)}, "spec.endpoint.ports[0].published: a task with network mode host has the node's own ports already"},
		{"ports without a network", edits{none, hostPort(80, 80)}, "spec.task.host_ports[0].published: a task with network mode none has no network"},
		{"dnsrr on the host's", edits{host, dnsrr}, "spec.endpoint.mode"},
		{"dnsrr and ingress", edits{dnsrr, ingress(80, 80)}, "spec.endpoint.mode: mode dnsrr cannot publish ports on every node"},
		{"dnsrr and host ports", edits{dnsrr, hostPort(81, 80)}, ""},
		{"a port twice", edits{ingress(80, 80), ingress(80, 81)}, "spec.endpoint.ports[1].published: the port 80/tcp is published twice"},
		{"a port both ways", edits{ingress(80, 80), hostPort(80, 80)}, "spec.task.host_ports[0].published: the port 80/tcp is published twice"},
		{"two protocols", edits{ingress(80, 80), ingress(80, 80), lastUDP}, ""},
		{"two ports to one", edits{ingress(80, 80), ingress(81, 80)}, ""},
		{"any port twice", edits{ingress(0, 80), ingress(0, 80)}, "any port for 80/tcp is asked for twice"},
		{"any port both ways", edits{ingress(0, 80), hostPort(0, 80)}, ""},
		{"names twice", edits{ingress(80, 80), hostPort(81, 81), named}, "spec.task.host_ports[0].name: two ports of tcp have the name http"},
		{"a name of two protocols", edits{ingress(80, 80), ingress(80, 80), lastUDP, named}, ""},
		{"the managers' port", edits{ingress(7420, 80)}, "port 7420/tcp is where managers are reached"},
		{"the overlay's port", edits{ingress(7421, 80), lastUDP}, "port 7421/udp is where the overlay's packets go"},
		{"the overlay's port in TCP", edits{ingress(7421, 80)}, ""},
		{"its own name", edits{on("shop"), aliases("web")}, "spec.networks[0].aliases[0]: is the service's own name"},
		{"an alias twice", edits{on("shop"), aliases("a", "a")}, "the alias a is given twice"},
		{"another's name", edits{on("shop"), aliases("db")}, "spec.networks[0].aliases[0]: db is the name of a service on network shop"},
		{"another's name elsewhere", edits{on("default"), aliases("db")}, ""},
		{"no label", edits{on("shop"), aliases("a.b")}, "spec.networks[0].aliases[0]: must be a DNS label"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := serve(t, network("shop"))
			s.created("db", on("shop"))
			_, err := s.create("web", c.edits...)
			if c.want != "" {
				refused(t, err, connect.CodeInvalidArgument, c.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAPortThatMachinesAreAdministeredByIsWarnedOf(t *testing.T) {
	s := serve(t)
	res := must(s, s.services.CreateService, &warrenv1.CreateServiceRequest{Spec: spec("web", ingress(22, 2222))})
	if len(res.GetWarnings()) != 1 || !strings.Contains(res.GetWarnings()[0], "SSH") {
		t.Errorf("warned of %q", res.GetWarnings())
	}
}

func TestAPublishedPortIsOneServices(t *testing.T) {
	s := serve(t)
	web := s.created("web", ingress(8080, 80), hostPort(9100, 9100), ingress(9101, 81))
	for want, edit := range map[string]func(*warrenv1.ServiceSpec){
		"port 8080/tcp is published by service web already": ingress(8080, 81),
		"port 8080/tcp is published by service web":         hostPort(8080, 81),
	} {
		_, err := s.create("api", edit)
		refused(t, err, connect.CodeAlreadyExists, want, "service update web --publish-rm 8080:80`")
	}
	_, err := s.create("api", ingress(9100, 80))
	refused(t, err, connect.CodeAlreadyExists, "port 9100/tcp is published by service web", "service update web --publish-rm 9100:9100`")
	s.created("api", hostPort(9100, 80), ingress(0, 80)) // the scheduler keeps their tasks apart

	// What the addressing loop has given counts as well.
	transaction := state.New(time.Now())
	state.Update(transaction, s.store.Snapshot().ServiceByName("api"), func(s *warrenv1.Service) {
		s.Endpoint = &warrenv1.ServiceEndpoint{Ports: []*warrenv1.PublishedPort{
			{Published: 30000, Target: 80}, {Published: 30001, Target: 53, Protocol: warrenv1.Protocol_PROTOCOL_UDP},
		}}
	})
	statetest.Commit(t, s.proposer.Proposer, transaction)
	_, err = s.create("third", ingress(30000, 81))
	refused(t, err, connect.CodeAlreadyExists, "service update api --publish-rm 80`")
	_, err = s.create("third", ingress(30001, 81), func(s *warrenv1.ServiceSpec) { s.Endpoint.Ports[0].Protocol = warrenv1.Protocol_PROTOCOL_UDP })
	refused(t, err, connect.CodeAlreadyExists, "service update api --publish-rm 53/udp`")

	// What a service has, it keeps, whoever has come to have it too.
	statetest.Put(t, s.store, statetest.Replicated("twin", 1, func(s *warrenv1.Service) { s.Spec = spec("twin", ingress(8080, 80)) }))
	again := proto.CloneOf(web.GetSpec())
	again.Labels = map[string]string{"a": "b"}
	must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Spec: again})

	must(s, s.services.DeleteService, &warrenv1.DeleteServiceRequest{Ref: "web"})
	_, err = s.create("fourth", ingress(9101, 80))
	refused(t, err, connect.CodeAlreadyExists, "still being removed", "wait")
}

func TestAHostPortThatIsLeftToWarrenIsFilledInAndKept(t *testing.T) {
	s := serve(t)
	given := func(service *warrenv1.Service) uint32 {
		return service.GetSpec().GetTask().GetHostPorts()[0].GetPublished()
	}
	web := s.created("web", hostPort(0, 80), ingress(0, 80))
	port := given(web)
	if port < 30000 || port > 32767 {
		t.Fatalf("given %d", port)
	}
	if got := web.GetSpec().GetEndpoint().GetPorts()[0].GetPublished(); got != 0 {
		t.Errorf("a port of every node is for the addressing loop to give, and was given %d", got)
	}
	if kept := s.store.Snapshot().Revision(web.GetMeta().GetId(), 1); !proto.Equal(kept.GetTask(), web.GetSpec().GetTask()) {
		t.Errorf("the revision has %v", kept)
	}
	updated := must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Spec: spec("web", hostPort(0, 80), ingress(0, 80))}).GetService()
	if given(updated) != port || updated.GetRevision() != 1 || updated.GetMeta().GetVersion() != web.GetMeta().GetVersion() {
		t.Errorf("an update that changes nothing made %v", updated)
	}
	updated = must(s, s.services.UpdateService, &warrenv1.UpdateServiceRequest{Ref: "web", Spec: spec("web", hostPort(0, 81))}).GetService()
	if given(updated) == 0 || updated.GetRevision() != 2 {
		t.Errorf("another target: %v", updated)
	}
}

func TestWhenNoPortIsLeftThatIsSaid(t *testing.T) {
	s := serve(t)
	for i := range 11 {
		name := fmt.Sprint("s", i)
		statetest.Put(t, s.store, statetest.Replicated(name, 1, func(s *warrenv1.Service) {
			s.Spec = spec(name)
			for p := range uint32(256) {
				if port := 30000 + uint32(i)*256 + p; port != 31234 || i == 10 {
					hostPort(port, 1+p)(s.Spec)
				}
			}
		}))
	}
	web := s.created("web", hostPort(0, 80))
	if got := web.GetSpec().GetTask().GetHostPorts()[0].GetPublished(); got != 31234 {
		t.Errorf("given %d, which is another's", got)
	}
	_, err := s.create("late", hostPort(0, 80))
	refused(t, err, connect.CodeResourceExhausted, "no port from 30000 to 32767 is free", "name another")
}

func TestANodesWireGuardIsReachedWhereOthersCanReachIt(t *testing.T) {
	s := serve(t, statetest.Node("n1"), statetest.Node("n2", func(n *warrenv1.Node) { n.Spec.WireguardEndpoint = "203.0.113.9:7421" }))
	for endpoint, want := range map[string]string{
		"203.0.113.7:7421":          "",
		"[2001:db8::7]:7421":        "",
		"":                          "",
		"203.0.113.7":               "is no address and port: write ADDRESS:PORT",
		"203.0.113.7:0":             "port 0 cannot be reached",
		"node.example:7421":         `"node.example" is a name`,
		"2001:db8::7:7421":          "no address and port",
		"127.0.0.1:7421":            "other nodes cannot reach this one at 127.0.0.1",
		"0.0.0.0:7421":              "cannot reach",
		"[ff02::1]:7421":            "cannot reach",
		"[fe80::1%eth0]:7421":       "good on one link alone",
		"[::ffff:203.0.113.7]:7421": "write 203.0.113.7:7421",
		"203.0.113.9:7421":          "is where node n2 is reached",
	} {
		_, err := call(s, s.nodes.UpdateNode, &warrenv1.UpdateNodeRequest{Ref: "n1", Spec: &warrenv1.NodeSpec{WireguardEndpoint: endpoint}})
		if want != "" {
			refused(t, err, connect.CodeInvalidArgument, "spec.wireguard_endpoint", want)
		} else if err != nil {
			t.Errorf("%s: %v", endpoint, err)
		}
	}
}

func TestTheGenerationOfANodesKeyOnlyGrows(t *testing.T) {
	s := serve(t, statetest.Node("n1"))
	set := func(to uint64) (*warrenv1.Node, error) {
		res, err := call(s, s.nodes.UpdateNode, &warrenv1.UpdateNodeRequest{Ref: "n1", Spec: &warrenv1.NodeSpec{KeyGeneration: to}})
		return res.GetNode(), err
	}
	for _, c := range []struct{ set, want uint64 }{{3, 3}, {0, 3}, {4, 4}} {
		if n, err := set(c.set); err != nil || n.GetSpec().GetKeyGeneration() != c.want {
			t.Errorf("set %d: %v, %v", c.set, n, err)
		}
	}
	_, err := set(2)
	refused(t, err, connect.CodeInvalidArgument, "spec.key_generation: can only grow, and is 4 already: write 5")
}

func TestTheRangesOfAClusterStay(t *testing.T) {
	s := serve(t)
	_, err := call(s, s.clusters.UpdateCluster, &warrenv1.UpdateClusterRequest{Spec: &warrenv1.ClusterSpec{Network: &warrenv1.ClusterNetwork{NodePrefix: 25}}})
	refused(t, err, connect.CodeInvalidArgument, "spec.network.node_prefix: is 24 and cannot be changed to 25")
	_, err = call(s, s.clusters.InitCluster, &warrenv1.InitClusterRequest{Spec: &warrenv1.ClusterSpec{Network: &warrenv1.ClusterNetwork{VipRange: "10.208.0.0/16"}}})
	refused(t, err, connect.CodeInvalidArgument, "spec.network.vip_range", "--vip-range")
}

// overlaid is a node with a subnet, of an id in the form that agents have them.
func overlaid(id, hostname string, number int) *warrenv1.Node {
	return statetest.Node(id, func(n *warrenv1.Node) {
		n.Facts.Hostname = hostname
		n.Network = &warrenv1.NodeNetwork{Subnet: fmt.Sprintf("10.208.%d.0/24", number)}
	})
}

// answer plays a node's agent: it attends, and answers every stream that it is asked for until the test ends.
func (r *realm) answer(node, hostname string, say func(*warrenv1.OpenStream) []*warrenv1.RelayRequest) {
	r.t.Helper()
	agent := warrenv1connect.NewSessionServiceClient(r.overTLS(r.member(warrenv1.Role_ROLE_AGENT, node, time.Now())), r.url())
	session := agent.Attend(r.t.Context())
	hello := &warrenv1.Hello{NodeId: node, Facts: &warrenv1.NodeFacts{Hostname: hostname, Os: "linux", Arch: "amd64"}}
	if err := session.Send(&warrenv1.AttendRequest{Message: &warrenv1.AttendRequest_Hello{Hello: hello}}); err != nil {
		r.t.Fatal(err)
	}
	if _, err := session.Receive(); err != nil { // the welcome
		r.t.Fatal(err)
	}
	ended := make(chan struct{})
	r.t.Cleanup(func() {
		_ = session.CloseRequest() // at once, and not when the manager misses its heartbeat
		<-ended
	})
	go func() {
		defer close(ended)
		for {
			m, err := session.Receive()
			if err != nil {
				return
			}
			ask := m.GetOpenStream()
			if ask == nil {
				continue
			}
			stream := agent.Relay(r.t.Context())
			messages := append([]*warrenv1.RelayRequest{{}}, say(ask)...)
			messages[0].StreamId = ask.GetStreamId()
			for _, m := range messages {
				if err := stream.Send(m); err != nil {
					break // whoever asked has gone
				}
			}
			_ = stream.CloseRequest()
			for err = error(nil); err == nil; { // until the manager has read it all
				_, err = stream.Receive()
			}
		}
	}()
}

// pong answers every ping but those to an address.
func pong(ask *warrenv1.OpenStream, but string) []*warrenv1.RelayRequest {
	list := &warrenv1.PingList{}
	for _, address := range ask.GetPing().GetAddresses() {
		p := &warrenv1.Ping{Address: address, Sent: ask.GetPing().GetCount()}
		if address != but {
			p.Received, p.Average = p.Sent, durationpb.New(time.Millisecond)
		}
		list.Pings = append(list.Pings, p)
	}
	return []*warrenv1.RelayRequest{{Data: &warrenv1.RelayRequest_Pings{Pings: list}}}
}

// check checks the network, and returns what each row says by the node's name.
func (r *realm) check(nodes ...string) map[string]string {
	r.t.Helper()
	client := warrenv1connect.NewNetworkServiceClient(r.locally(nil), "http://manager")
	stream, err := client.CheckNetwork(r.t.Context(), connect.NewRequest(&warrenv1.CheckNetworkRequest{Nodes: nodes, Count: 2}))
	if err != nil {
		r.t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() {
		r.t.Fatal(stream.Err())
	}
	expected, rows := stream.Msg().GetRows(), map[string]string{}
	for stream.Receive() {
		row := stream.Msg()
		var said []string
		for _, p := range row.GetPings() {
			one := fmt.Sprintf("%s@%s %d/%d", p.GetHostname(), p.GetAddress(), p.GetReceived(), p.GetSent())
			if p.GetError() != "" {
				one = p.GetHostname() + ": " + p.GetError()
			}
			said = append(said, one)
		}
		slices.Sort(said)
		rows[row.GetHostname()] = strings.Join(append(said, row.GetError()), "; ")
	}
	if err := stream.Err(); err != nil || len(rows) != int(expected) {
		r.t.Fatalf("%d rows of %d: %v", len(rows), expected, err)
	}
	return rows
}

func TestTheOverlayIsCheckedThroughTheAgents(t *testing.T) {
	const first, second, third, down = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc", "dddddddddddddddd"
	r := serveTLS(t, overlaid(first, "n1", 1), overlaid(second, "n2", 2),
		statetest.Node(third, func(n *warrenv1.Node) {
			n.Facts.Hostname = "n3"
			n.Network = &warrenv1.NodeNetwork{Problem: "no subnet is left"}
		}),
		statetest.Node(down, func(n *warrenv1.Node) {
			n.Facts.Hostname = "n4"
			n.Status.State = warrenv1.NodeState_NODE_STATE_DOWN
		}))
	r.answer(first, "n1", func(ask *warrenv1.OpenStream) []*warrenv1.RelayRequest { return pong(ask, "") })
	r.answer(second, "n2", func(ask *warrenv1.OpenStream) []*warrenv1.RelayRequest { return pong(ask, "10.208.1.1") })
	r.answer(third, "n3", func(*warrenv1.OpenStream) []*warrenv1.RelayRequest {
		return []*warrenv1.RelayRequest{{Data: &warrenv1.RelayRequest_Error{Error: "there is no overlay here"}}}
	})
	got := r.check()
	for node, want := range map[string]string{
		"n1": "n2@10.208.2.1 2/2; n3: no subnet is left; ",
		"n2": "n1@10.208.1.1 0/2; n3: no subnet is left; ",
		"n3": "n1: was not tried; n2: was not tried; there is no overlay here",
	} {
		if got[node] != want {
			t.Errorf("%s: %q, want %q", node, got[node], want)
		}
	}
	if len(got) != 3 {
		t.Errorf("rows of %v", got)
	}
	// One alone is checked against all others, and they against it.
	got = r.check("n1")
	if got["n2"] != "n1@10.208.1.1 0/2; " || got["n1"] != "n2@10.208.2.1 2/2; n3: no subnet is left; " {
		t.Errorf("of one alone: %q", got)
	}
	// One that is named is a row though it is down.
	if got = r.check("n1", down, "n1"); len(got) != 2 || !strings.HasSuffix(got["n4"], "the node is down") {
		t.Errorf("of one that is down: %q", got)
	}
}

func TestOneOfEachTwoNodesSpeaksFirst(t *testing.T) {
	const first, second, third = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc"
	r := serveTLS(t, overlaid(first, "n1", 1), overlaid(second, "n2", 2), overlaid(third, "n3", 3))
	asked := make(chan string, 64)
	for node, hostname := range map[string]string{first: "n1", second: "n2", third: "n3"} {
		r.answer(node, hostname, func(ask *warrenv1.OpenStream) []*warrenv1.RelayRequest {
			addresses := slices.Sorted(slices.Values(ask.GetPing().GetAddresses()))
			asked <- fmt.Sprintf("%d x %s %s", ask.GetPing().GetCount(), hostname, addresses)
			return pong(ask, "")
		})
	}
	take := func(n int) (said []string) {
		for range n {
			said = append(said, <-asked)
		}
		slices.Sort(said)
		return said
	}
	r.check()
	// One that has none to speak to is asked for its network.
	if got, want := take(3), []string{"1 x n1 [10.208.2.1 10.208.3.1]", "1 x n2 [10.208.3.1]", "1 x n3 []"}; !slices.Equal(got, want) {
		t.Errorf("at first: %q", got)
	}
	if got, want := take(3), []string{"2 x n1 [10.208.2.1 10.208.3.1]", "2 x n2 [10.208.1.1 10.208.3.1]", "2 x n3 [10.208.1.1 10.208.2.1]"}; !slices.Equal(got, want) {
		t.Errorf("then: %q", got)
	}
	r.check("n3")
	if got, want := take(3), []string{"1 x n1 [10.208.3.1]", "1 x n2 [10.208.3.1]", "1 x n3 []"}; !slices.Equal(got, want) {
		t.Errorf("of one alone, at first: %q", got)
	}
}

func TestANodesAgentTellsOfItsPeers(t *testing.T) {
	const first, second = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb"
	r := serveTLS(t, overlaid(first, "n1", 1), overlaid(second, "n2", 2))
	r.answer(first, "n1", func(ask *warrenv1.OpenStream) []*warrenv1.RelayRequest {
		if ask.GetPeers() == nil {
			t.Errorf("asked for %v", ask)
		}
		list := &warrenv1.PeerList{Peers: []*warrenv1.OverlayPeer{{NodeId: second, SentBytes: 7}}}
		return []*warrenv1.RelayRequest{{Data: &warrenv1.RelayRequest_Peers{Peers: list}}}
	})
	nodes := warrenv1connect.NewNodeServiceClient(r.locally(nil), "http://manager")
	res, err := nodes.GetNodePeers(t.Context(), connect.NewRequest(&warrenv1.GetNodePeersRequest{Ref: "n1"}))
	if err != nil || len(res.Msg.GetPeers()) != 1 || res.Msg.GetPeers()[0].GetHostname() != "n2" || res.Msg.GetPeers()[0].GetSentBytes() != 7 {
		t.Errorf("told %v, %v", res, err)
	}
	r.answer(second, "n2", func(*warrenv1.OpenStream) []*warrenv1.RelayRequest {
		return []*warrenv1.RelayRequest{{Data: &warrenv1.RelayRequest_Error{Error: "there is no overlay here"}}}
	})
	_, err = nodes.GetNodePeers(t.Context(), connect.NewRequest(&warrenv1.GetNodePeersRequest{Ref: "n2"}))
	refused(t, err, connect.CodeUnavailable, "node n2 cannot say how it stands with the others: there is no overlay here")
}

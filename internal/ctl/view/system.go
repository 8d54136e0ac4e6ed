package view

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/ctl/output"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// ClusterVersion is one version of Warren's programs, and who runs it.
type ClusterVersion struct {
	Version  string   `json:"version"`
	Managers []string `json:"managers"`
	Nodes    []string `json:"nodes"`
}

// ClusterVersions are the versions there are in a cluster, each with the hostnames of its managers and nodes.
func ClusterVersions(managers []*warrenv1.Manager, nodes []*warrenv1.NodeEntry) []ClusterVersion {
	found := map[string]*ClusterVersion{}
	of := func(version string) *ClusterVersion {
		version = cmp.Or(version, "unknown")
		if found[version] == nil {
			found[version] = &ClusterVersion{Version: version, Managers: []string{}, Nodes: []string{}}
		}
		return found[version]
	}
	for _, m := range managers {
		v := of(m.GetVersion())
		v.Managers = append(v.Managers, cmp.Or(m.GetHostname(), m.GetId()))
	}
	for _, e := range nodes {
		v := of(e.GetNode().GetFacts().GetAgentVersion())
		v.Nodes = append(v.Nodes, nodeName(e.GetNode().GetFacts().GetHostname(), e.GetNode().GetMeta().GetId()))
	}
	var all []ClusterVersion
	for _, version := range slices.Sorted(maps.Keys(found)) {
		slices.Sort(found[version].Managers)
		slices.Sort(found[version].Nodes)
		all = append(all, *found[version])
	}
	return all
}

// manyNames is how many names are counted and not written down.
const manyNames = 6

// Versions is the table of the versions in a cluster.
func Versions(versions []ClusterVersion) *output.Table {
	t := &output.Table{Columns: []output.Column{
		{Title: "VERSION", Key: "Version"}, {Title: "MANAGERS", Key: "Managers", Elastic: true}, {Title: "NODES", Key: "Nodes", Elastic: true},
	}}
	names := func(all []string) string {
		if len(all) == 0 {
			return "-"
		}
		if len(all) >= manyNames {
			return strconv.Itoa(len(all))
		}
		return fmt.Sprintf("%d (%s)", len(all), strings.Join(all, ", "))
	}
	for _, v := range versions {
		t.Rows = append(t.Rows, output.Row{
			ID: v.Version, Name: v.Version,
			Cells: []output.Cell{cell(v.Version), cell(names(v.Managers)), cell(names(v.Nodes))},
		})
	}
	return t
}

// System is one page about a cluster.
type System struct {
	Name          string           `json:"name"`
	ID            string           `json:"id"`
	Format        uint32           `json:"format"`
	Versions      []ClusterVersion `json:"versions"`
	Managers      []SystemManager  `json:"managers"`
	Quorum        uint32           `json:"quorum"`
	Reachable     uint32           `json:"managersReachable"`
	Nodes         map[string]int   `json:"nodes"`
	Services      int              `json:"services"`
	Tasks         map[string]int   `json:"tasks"`
	Reserved      Amount           `json:"reserved"`
	Total         Amount           `json:"total"`
	NodeRange     string           `json:"nodeRange,omitempty"`
	NodePrefix    uint32           `json:"nodePrefix,omitempty"`
	VIPRange      string           `json:"vipRange,omitempty"`
	WireguardPort uint32           `json:"wireguardPort,omitempty"`
	CAExpires     *time.Time       `json:"caExpiresAt,omitempty"`
	CARotation    bool             `json:"caRotation"`
	Autolock      bool             `json:"autolock"`
	Warnings      []string         `json:"warnings"`

	quorum string
}

// SystemManager is a manager as the page shows it.
type SystemManager struct {
	Hostname string `json:"hostname"`
	ID       string `json:"id"`
	Addr     string `json:"addr,omitempty"`
	Status   string `json:"status"`
	Version  string `json:"version,omitempty"`
}

// Amount is a number of processors and bytes.
type Amount struct {
	CPUs   float64 `json:"cpus"`
	Memory int64   `json:"memoryBytes"`
}

func (a *Amount) add(r *warrenv1.Resources) {
	a.CPUs += float64(r.GetNanoCpus()) / 1e9
	a.Memory += r.GetMemoryBytes()
}

// Facts are what the page is made of. Trust is nil where it could not be learnt.
type Facts struct {
	Cluster  *warrenv1.GetClusterResponse
	Nodes    []*warrenv1.NodeEntry
	Services []*warrenv1.ServiceEntry
	Tasks    []*warrenv1.TaskEntry
	Trust    *warrenv1.Trust
}

// NewSystem puts the page together.
func NewSystem(f Facts, now time.Time) System {
	cluster, spec := f.Cluster.GetCluster(), f.Cluster.GetCluster().GetSpec()
	p := System{
		Name: spec.GetName(), ID: cluster.GetMeta().GetId(), Format: max(cluster.GetFormat(), 1),
		Versions: ClusterVersions(f.Cluster.GetManagers(), f.Nodes), Managers: []SystemManager{},
		Quorum: f.Cluster.GetQuorum(), Reachable: f.Cluster.GetManagersReachable(),
		Nodes: map[string]int{}, Services: len(f.Services), Tasks: map[string]int{},
		NodeRange: spec.GetNetwork().GetNodeRange(), NodePrefix: spec.GetNetwork().GetNodePrefix(),
		VIPRange: spec.GetNetwork().GetVipRange(), WireguardPort: spec.GetNetwork().GetWireguardPort(),
		CARotation: f.Cluster.GetCaRotation(), Autolock: spec.GetAutolock(),
		quorum: Quorum(f.Cluster),
	}
	for _, m := range f.Cluster.GetManagers() {
		p.Managers = append(p.Managers, SystemManager{m.GetHostname(), m.GetId(), m.GetAddr(), ManagerStatus(m), m.GetVersion()})
	}
	for _, e := range f.Nodes {
		p.Nodes[NodeState(e.GetNode().GetStatus().GetState())]++
		p.Reserved.add(e.GetReserved())
		p.Total.add(e.GetNode().GetFacts().GetResources())
	}
	for _, t := range f.Tasks {
		p.Tasks[State(t.GetTask().GetStatus().GetState())]++
	}
	if a := f.Trust.GetAuthorities(); len(a) > 0 && a[0].GetExpiresAt() != nil {
		expires := a[0].GetExpiresAt().AsTime()
		p.CAExpires = &expires
	}
	p.Warnings = p.warnings(f, now)
	return p
}

const (
	// caEnds is how long before its end the CA's certificate is warned of: replacing it wants to be planned.
	caEnds = 90 * 24 * time.Hour
	// overdue is the part of its life that a certificate has left which should have been renewed long before: members
	// renew past half of it.
	overdue = 4
)

// warnings say what should not stay as it is.
func (p System) warnings(f Facts, now time.Time) []string {
	said := p.managerWarnings(f.Cluster, len(f.Nodes))
	if len(p.Versions) > 1 {
		var versions []string
		for _, v := range p.Versions {
			versions = append(versions, v.Version)
		}
		said = append(said, "the cluster runs several versions: "+strings.Join(versions, ", ")+": finish the upgrade; `warrenctl version` shows who runs which")
	}
	var away []string
	for _, e := range f.Nodes {
		if now := e.GetNode().GetStatus().GetState(); now != warrenv1.NodeState_NODE_STATE_READY {
			away = append(away, nodeName(e.GetNode().GetFacts().GetHostname(), e.GetNode().GetMeta().GetId())+" is "+NodeState(now))
		}
	}
	if len(away) > 0 {
		said = append(said, fewOf(away)+": see `warrenctl why node NAME`")
	}
	if p.CAExpires != nil {
		switch left := p.CAExpires.Sub(now); {
		case left <= 0:
			said = append(said, "the CA's certificate has expired: see `warrenctl cluster ca rotate`")
		case left < caEnds:
			said = append(said, "the CA's certificate ends in "+Lasting(left)+": replace it with `warrenctl cluster ca rotate`")
		}
	}
	if late := overdueMembers(f, now); len(late) > 0 {
		said = append(said, "certificates that were not renewed in time: "+fewOf(late)+": see the logs of their daemons")
	}
	if said == nil {
		said = []string{}
	}
	return said
}

func (p System) managerWarnings(c *warrenv1.GetClusterResponse, nodes int) (said []string) {
	voters := 0
	for _, m := range c.GetManagers() {
		if m.GetVoter() {
			voters++
		}
	}
	spare := int(p.Reachable) - int(p.Quorum)
	switch {
	case voters > 0 && spare < 0:
		said = append(said, fmt.Sprintf("the quorum is lost: %d of %d managers are reachable, %d are needed: start the others, or see `warrenctl cluster recover --help`", p.Reachable, voters, p.Quorum))
	case voters == 1 && nodes > 1:
		said = append(said, "there is one manager: if its machine is lost nothing can be changed until it is back; three survive the loss of one")
	case voters > 1 && spare == 0:
		said = append(said, fmt.Sprintf("no manager may be lost any more: %d of %d are reachable, and %d are needed", p.Reachable, voters, p.Quorum))
	}
	if voters > 1 && voters%2 == 0 {
		said = append(said, fmt.Sprintf("%d managers survive the loss of no more than %d do: add one, or take one away", voters, voters-1))
	}
	return said
}

// overdueMembers are the members whose certificates should have been renewed long ago.
func overdueMembers(f Facts, now time.Time) (late []string) {
	life := f.Cluster.GetCluster().GetSpec().GetCertificateLife()
	add := func(who string, expires *timestamppb.Timestamp) {
		if expires == nil || !isOverdue(expires, life, now) {
			return
		}
		said := "ends " + Expiry(expires, now)
		if !expires.AsTime().After(now) {
			said = Expiry(expires, now)
		}
		late = append(late, who+" ("+said+")")
	}
	for _, m := range f.Cluster.GetManagers() {
		add("manager "+cmp.Or(m.GetHostname(), m.GetId()), m.GetCertificateExpiresAt())
	}
	for _, e := range f.Nodes {
		n := e.GetNode()
		add("node "+nodeName(n.GetFacts().GetHostname(), n.GetMeta().GetId()), n.GetStatus().GetCertificateExpiresAt())
	}
	return late
}

func isOverdue(expires *timestamppb.Timestamp, life *durationpb.Duration, now time.Time) bool {
	left := expires.AsTime().Sub(now)
	return left <= 0 || life != nil && left < life.AsDuration()/overdue
}

// fewOf joins the first of many.
func fewOf(all []string) string {
	const few = 5
	if len(all) > few {
		return strings.Join(all[:few], ", ") + fmt.Sprintf(" and %d more", len(all)-few)
	}
	return strings.Join(all, ", ")
}

// String writes the page for people.
func (p System) String() string {
	page := &page{}
	page.say("Cluster", p.Name+" ("+p.ID+")")
	for _, v := range p.Versions {
		page.list("Version "+v.Version, []string{countedKinds(v)})
	}
	page.say("Format of the state", strconv.FormatUint(uint64(p.Format), 10))
	var managers []string
	for _, m := range p.Managers {
		said := cmp.Or(m.Hostname, m.ID)
		if m.Addr != "" {
			said += " at " + m.Addr
		}
		managers = append(managers, said+" ("+m.Status+")")
	}
	page.list("Managers", managers)
	if p.Quorum > 0 {
		page.say("Quorum", p.quorum)
	}
	page.say("Nodes", states(p.Nodes))
	page.say("Services", strconv.Itoa(p.Services))
	page.say("Tasks", states(p.Tasks))
	page.say("Processors", fmt.Sprintf("%s of %s reserved", strconv.FormatFloat(p.Reserved.CPUs, 'f', -1, 64), strconv.FormatFloat(p.Total.CPUs, 'f', -1, 64)))
	page.say("Memory", fmt.Sprintf("%s of %s reserved", Memory(p.Reserved.Memory), Memory(p.Total.Memory)))
	if p.NodeRange != "" {
		page.say("Addresses of nodes", fmt.Sprintf("%s, a /%d for each", p.NodeRange, p.NodePrefix))
	}
	page.say("Addresses of services", p.VIPRange)
	if p.CAExpires != nil {
		page.say("CA", "ends "+p.CAExpires.Format(time.DateOnly))
	}
	if p.CARotation {
		page.say("CA rotation", "under way: `warrenctl cluster ca rotate` shows how far it is")
	}
	page.say("Autolock", map[bool]string{true: "on", false: "off"}[p.Autolock])
	page.list("Warnings", p.Warnings)
	return page.String()
}

func countedKinds(v ClusterVersion) string {
	var said []string
	if len(v.Managers) > 0 {
		said = append(said, count(len(v.Managers), "manager", "managers"))
	}
	if len(v.Nodes) > 0 {
		said = append(said, count(len(v.Nodes), "node", "nodes"))
	}
	return strings.Join(said, ", ")
}

// states writes how many are in each state: what is as it should be first, then the most.
func states(counts map[string]int) string {
	if len(counts) == 0 {
		return "none"
	}
	var said []string
	for _, state := range slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(well(b)-well(a), cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	}) {
		said = append(said, fmt.Sprintf("%d %s", counts[state], state))
	}
	return strings.Join(said, ", ")
}

func well(state string) int {
	if state == "ready" || state == "running" {
		return 1
	}
	return 0
}

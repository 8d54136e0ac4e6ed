package raftwire_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/cuemby/warren/internal/manager/consensus"
	"github.com/cuemby/warren/internal/manager/raftwire"
	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// authority issues certificates for tests.
type authority struct {
	t       testing.TB
	cluster string
	ca      *pki.CA
}

func newAuthority(t testing.TB, cluster string) *authority {
	t.Helper()
	ca, err := pki.NewCA(cluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return &authority{t, cluster, ca}
}

// issue returns credentials that are good for as long as life.
func (a *authority) issue(role warrenv1.Role, name string, life time.Duration) *pki.Credentials {
	a.t.Helper()
	key, err := pki.NewKey()
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := a.ca.Issue(&key.PublicKey, pki.Identity{Cluster: a.cluster, Role: role, Name: name}, life, time.Now())
	if err != nil {
		a.t.Fatal(err)
	}
	c, err := pki.New(key, cert, [][]byte{a.ca.Certificate.Raw}, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

func (a *authority) manager(name string) *pki.Credentials {
	return a.issue(warrenv1.Role_ROLE_MANAGER, name, time.Hour)
}

// manager is a server whose port carries raft's messages and an API, as managers' do.
type manager struct {
	*raftwire.Wire
	id, addr string
	holder   *pki.Holder
	removed  sync.Map // the ids that it refuses
	refused  atomic.Int64
}

// start starts a manager's server on a port of its own.
func start(t testing.TB, id string, credentials *pki.Credentials) *manager {
	t.Helper()
	m := &manager{id: id, holder: pki.NewHolder(credentials)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m.addr = l.Addr().String()
	m.Wire = raftwire.New(raftwire.Options{
		ID: id, Addr: m.addr, Credentials: m.holder, Logger: slog.New(slog.DiscardHandler), Timeout: 5 * time.Second,
		Admit: func(id string) bool {
			if _, removed := m.removed.Load(id); removed {
				m.refused.Add(1)
				return false
			}
			return true
		},
	})
	config := m.holder.ServerConfig()
	config.NextProtos = append(config.NextProtos, raftwire.ALPN)
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	server := &http.Server{
		Protocols: protocols, TLSConfig: config,
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){raftwire.ALPN: m.Serve},
		Handler:      http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Proto) }),
		ErrorLog:     slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.ServeTLS(l, "", "") })
	t.Cleanup(func() {
		if err := errors.Join(m.Close(), server.Shutdown(t.Context()), server.Close()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
		serving.Wait()
	})
	return m
}

// answer has the manager answer raft's messages like one that follows, and returns how many it has answered.
func (m *manager) answer(t testing.TB) *atomic.Int64 {
	var n atomic.Int64
	stop := make(chan struct{})
	var answering sync.WaitGroup
	answering.Go(func() {
		for {
			select {
			case rpc := <-m.Consumer():
				n.Add(1)
				switch rpc.Command.(type) {
				case *raft.AppendEntriesRequest:
					rpc.Respond(&raft.AppendEntriesResponse{Term: 7, Success: true}, nil)
				case *raft.RequestVoteRequest:
					rpc.Respond(&raft.RequestVoteResponse{Granted: true}, nil)
				default:
					rpc.Respond(nil, errors.New("not expected here"))
				}
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(func() { close(stop); answering.Wait() })
	return &n
}

// say sends a message from one to the other.
func (m *manager) say(to, addr string) error {
	var answer raft.AppendEntriesResponse
	err := m.AppendEntries(raft.ServerID(to), raft.ServerAddress(addr), &raft.AppendEntriesRequest{Term: 7, PrevLogEntry: 1}, &answer)
	if err == nil && answer.Term != 7 {
		err = fmt.Errorf("the answer is %v", &answer)
	}
	return err
}

func TestManagersAgreeOverTheirAPIsPort(t *testing.T) {
	a := newAuthority(t, "c1")
	nodes, stores := map[string]*consensus.Node{}, map[string]*state.Store{}
	managers := map[string]*manager{}
	for _, id := range []string{"m1", "m2", "m3"} {
		m := start(t, id, a.manager(id))
		store := state.NewStore()
		node, err := consensus.Open(consensus.Options{ID: id, DataDir: t.TempDir(), Transport: m.Wire, Logger: slog.New(slog.DiscardHandler)}, state.NewMachine(store))
		if err != nil {
			t.Fatal(err)
		}
		stop := make(chan struct{})
		var draining sync.WaitGroup
		draining.Go(func() {
			for {
				select {
				case <-node.Leadership():
				case <-stop:
					return
				}
			}
		})
		t.Cleanup(func() { _ = node.Close(); close(stop); draining.Wait() })
		nodes[id], stores[id], managers[id] = node, store, m
	}
	m1 := nodes["m1"]
	if err := m1.Bootstrap(managers["m1"].addr); err != nil {
		t.Fatal(err)
	}
	await(t, m1, func() bool { return m1.VerifyLeader(t.Context()) == nil })
	for _, id := range []string{"m2", "m3"} {
		index, err := m1.AddNonvoter(t.Context(), id, managers[id].addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := nodes[id].AwaitApplied(t.Context(), index); err != nil {
			t.Fatal(err)
		}
		if err := m1.AddVoter(t.Context(), id, managers[id].addr); err != nil {
			t.Fatal(err)
		}
	}
	tx := state.New(time.Now())
	tx.Create(&warrenv1.Node{Meta: &warrenv1.Meta{Id: "n1"}, Facts: &warrenv1.NodeFacts{Hostname: "n1"}})
	if results, err := m1.Propose(t.Context(), tx); err != nil || results != nil {
		t.Fatal(results, err)
	}
	if err := m1.VerifyLeader(t.Context()); err != nil {
		t.Error(err)
	}
	for id, node := range nodes {
		if err := node.AwaitApplied(t.Context(), stores["m1"].Snapshot().Index()); err != nil || stores[id].Snapshot().Node("n1") == nil {
			t.Errorf("%s does not have it: %v", id, err)
		}
		if leader, addr := node.Leader(); leader != "m1" || addr != managers["m1"].addr {
			t.Errorf("%s takes %q at %q for the leader", id, leader, addr)
		}
	}
	// The others go on when the leader's machine is switched off.
	began := time.Now()
	if err := managers["m1"].Close(); err != nil {
		t.Fatal(err)
	}
	m2 := nodes["m2"]
	await(t, m2, func() bool { id, _ := m2.Leader(); return id == "m2" || id == "m3" })
	t.Logf("another led after %v", time.Since(began))
}

// await waits until something is so that changes with who leads.
func await(t testing.TB, n *consensus.Node, is func() bool) {
	t.Helper()
	for {
		changed := n.Changed()
		if is() {
			return
		}
		select {
		case <-changed:
		case <-time.After(20 * time.Second):
			t.Fatal("waited for 20 s")
		}
	}
}

func TestTheSamePortServesTheAPI(t *testing.T) {
	a := newAuthority(t, "c1")
	m := start(t, "m1", a.manager("m1"))
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: pki.NewHolder(a.manager("m2")).ClientConfig(), ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	res, err := client.Get("https://" + m.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if said, err := io.ReadAll(res.Body); string(said) != "HTTP/2.0" {
		t.Errorf("it said %q, %v", said, err)
	}
}

func TestOnlyManagersOfTheClusterAreHeard(t *testing.T) {
	a, foreign := newAuthority(t, "c1"), newAuthority(t, "c1")
	m := start(t, "m1", a.manager("m1"))
	heard := m.answer(t)
	friend := start(t, "m2", a.manager("m2"))
	if err := friend.say("m1", m.addr); err != nil {
		t.Fatalf("a manager: %v", err)
	}
	if heard.Load() != 1 {
		t.Fatalf("%d messages were heard", heard.Load())
	}
	for who, credentials := range map[string]*pki.Credentials{
		"a manager of another CA":  foreign.manager("m3"),
		"an agent":                 a.issue(warrenv1.Role_ROLE_AGENT, "n1", time.Hour),
		"an administrator":         a.issue(warrenv1.Role_ROLE_ADMIN, "root", time.Hour),
		"an expired manager":       a.issue(warrenv1.Role_ROLE_MANAGER, "m3", -time.Minute),
		"a manager from elsewhere": newAuthority(t, "c2").manager("m3"),
	} {
		// It dials without a look at who answers, which is what an attacker's program would do.
		config := pki.NewHolder(credentials).ClientConfig()
		config.NextProtos, config.VerifyConnection = []string{raftwire.ALPN}, nil
		conn, err := tls.Dial("tcp", m.addr, config)
		if err != nil {
			continue // it was refused as they shook hands, which will do
		}
		if n, err := conn.Read(make([]byte, 1)); err == nil {
			t.Errorf("%s was answered %d bytes", who, n)
		}
		conn.Close()
	}
	if nobody, err := tls.Dial("tcp", m.addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{raftwire.ALPN}}); err == nil {
		if _, err := nobody.Read(make([]byte, 1)); err == nil {
			t.Error("somebody without a certificate was answered")
		}
		nobody.Close()
	}
	if heard.Load() != 1 {
		t.Errorf("%d messages were heard", heard.Load())
	}
}

func TestWhoeverAnswersMustBeTheManagerThatIsMeant(t *testing.T) {
	a := newAuthority(t, "c1")
	caller := start(t, "m1", a.manager("m1"))
	for who, c := range map[string]struct {
		credentials *pki.Credentials
		says        string
	}{
		"another manager":        {a.manager("m3"), "manager m3 answers there"},
		"an agent":               {a.issue(warrenv1.Role_ROLE_AGENT, "m2", time.Hour), "only managers take part"},
		"a manager of elsewhere": {newAuthority(t, "c1").manager("m2"), "not issued by this cluster's CA"},
	} {
		m := start(t, "m2", c.credentials)
		heard := m.answer(t)
		if err := caller.say("m2", m.addr); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", who, err)
		}
		if heard.Load() != 0 {
			t.Errorf("%s heard %d messages", who, heard.Load())
		}
	}
}

func TestAManagerThatIsRemovedIsCutOffAndRefused(t *testing.T) {
	a := newAuthority(t, "c1")
	m1, m2 := start(t, "m1", a.manager("m1")), start(t, "m2", a.manager("m2"))
	m1.answer(t)
	m2.answer(t)
	if err := errors.Join(m2.say("m1", m1.addr), m1.say("m2", m2.addr)); err != nil {
		t.Fatal(err)
	}
	m1.removed.Store("m2", true)
	m1.Recheck()
	if err := m2.say("m1", m1.addr); err == nil {
		t.Error("it was answered")
	}
	if err := m1.say("m2", m2.addr); err == nil || !strings.Contains(err.Error(), "no longer, a member") {
		t.Errorf("it was told: %v", err)
	}
	m1.removed.Delete("m2")
	if err := errors.Join(m2.say("m1", m1.addr), m1.say("m2", m2.addr)); err != nil {
		t.Errorf("once let in again: %v", err)
	}
}

func TestNobodyStaysConnectedForLongerThanTheCertificateLasts(t *testing.T) {
	a := newAuthority(t, "c1")
	m1, m2 := start(t, "m1", a.manager("m1")), start(t, "m2", a.issue(warrenv1.Role_ROLE_MANAGER, "m2", 2*time.Second))
	m1.answer(t)
	if err := m2.say("m1", m1.addr); err != nil {
		t.Fatal(err)
	}
	// The certificate's time is in whole seconds, so it ends within two.
	for began := time.Now(); m2.say("m1", m1.addr) == nil; time.Sleep(50 * time.Millisecond) {
		if time.Since(began) > 10*time.Second {
			t.Fatal("it is still answered")
		}
	}
	m2.holder.Set(a.manager("m2"))
	if err := m2.say("m1", m1.addr); err != nil {
		t.Errorf("with a new certificate: %v", err)
	}
}

func TestAManagerThatWasRestartedIsReachedAtOnce(t *testing.T) {
	a := newAuthority(t, "c1")
	m1, m2 := start(t, "m1", a.manager("m1")), start(t, "m2", a.manager("m2"))
	m2.answer(t)
	var all sync.WaitGroup
	for range 8 { // so that there is more than one connection
		all.Go(func() {
			if err := m1.say("m2", m2.addr); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	m2.removed.Store("m1", true)
	m2.Recheck() // which closes the connections that m1 keeps
	m2.removed.Delete("m1")
	var vote raft.RequestVoteResponse
	if err := m1.RequestVote("m2", raft.ServerAddress(m2.addr), &raft.RequestVoteRequest{}, &vote); err != nil || !vote.Granted {
		t.Errorf("the vote is %v, %v", &vote, err)
	}
}

func TestAVoteIsForAManagerAndNotForAnAddress(t *testing.T) {
	a := newAuthority(t, "c1")
	m := start(t, "m1", a.manager("m1"))
	if got := string(m.EncodePeer("m1", "1.2.3.4:5")); got != "m1@"+m.addr {
		t.Errorf("it stands for election as %q", got)
	}
	m.SetAddr("10.0.0.1:7420")
	if got := string(m.EncodePeer("m1", "1.2.3.4:5")); got != "m1@10.0.0.1:7420" || m.LocalAddr() != "10.0.0.1:7420" {
		t.Errorf("it stands for election as %q", got)
	}
	if got := string(m.EncodePeer("m2", "10.0.0.1:7420")); got != "m2@10.0.0.1:7420" {
		t.Errorf("another is %q", got)
	}
}

package api_test

import (
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/cuemby/warren/internal/caller"
	"github.com/cuemby/warren/internal/manager/authority"
	"github.com/cuemby/warren/internal/manager/state/statetest"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

// serveTrust is the API of a cluster that has a CA.
func serveTrust(t *testing.T) (*served, warrenv1connect.TrustServiceClient) {
	t.Helper()
	key := authority.NewKey()
	kept, err := authority.Found(statetest.ClusterID, key, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	s := serve(t, kept)
	s.ca.SetKey(key)
	return s, warrenv1connect.NewTrustServiceClient(s.http.Client(), s.url)
}

func TestAWatchTellsHowAReplacementOfTheCAGoesOn(t *testing.T) {
	s, trust := serveTrust(t)
	stream, err := trust.WatchTrust(t.Context(), connect.NewRequest(&warrenv1.WatchTrustRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	next := func() *warrenv1.Trust {
		t.Helper()
		if !stream.Receive() {
			t.Fatal(stream.Err())
		}
		return stream.Msg().GetTrust()
	}
	if got := next(); len(got.GetAuthorities()) != 1 || got.GetRotationStartedAt() != nil {
		t.Errorf("at first %v", got)
	}
	statetest.Put(t, s.store, &statev1.Member{Meta: &warrenv1.Meta{Id: "m1"}}, &statev1.Member{Meta: &warrenv1.Meta{Id: "m2"}}, statetest.Node("n1"))

	begun := must(s, trust.RotateCA, &warrenv1.RotateCARequest{}).GetTrust()
	if len(begun.GetAuthorities()) != 2 || len(begun.GetPending()) != 3 {
		t.Errorf("begun as %v", begun)
	}
	if again := must(s, trust.RotateCA, &warrenv1.RotateCARequest{}).GetTrust(); again.GetAuthorities()[0].GetDigest() != begun.GetAuthorities()[0].GetDigest() {
		t.Error("asked for again it begins anew")
	}
	issuer := begun.GetAuthorities()[0].GetDigest()
	got := next()
	if len(got.GetAuthorities()) != 2 || got.GetRenewed() != 0 || len(got.GetPending()) != 3 || got.GetRotationStartedAt() == nil {
		t.Errorf("then %v", got)
	}
	// m1 leads in these tests, of m2 nobody has heard.
	if p := got.GetPending(); p[0].GetDown() || !p[1].GetDown() || p[2].GetDown() {
		t.Errorf("down are %v", p)
	}
	// What has no bearing on it is not told.
	statetest.Put(t, s.store, statetest.Replicated("web", 1), statetest.Node("n1", func(n *warrenv1.Node) { n.Status.Message = "x" }))
	statetest.Put(t, s.store, statetest.Node("n1", func(n *warrenv1.Node) { n.Status.Issuer = issuer }))
	if got := next(); got.GetRenewed() != 1 || len(got.GetPending()) != 2 {
		t.Errorf("when one has renewed %v", got)
	}
	statetest.Put(t, s.store, &statev1.Member{Meta: &warrenv1.Meta{Id: "m1"}, Issuer: issuer}, &statev1.Member{Meta: &warrenv1.Meta{Id: "m2"}, Issuer: issuer})
	for got = next(); len(got.GetPending()) > 0; got = next() {
	}
	if got.GetRenewed() != 3 {
		t.Errorf("when all have renewed %v", got)
	}
}

func TestAWatchOfTheCAEndsWithTheManager(t *testing.T) {
	s, trust := serveTrust(t)
	stream, err := trust.WatchTrust(t.Context(), connect.NewRequest(&warrenv1.WatchTrustRequest{}))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	if !stream.Receive() {
		t.Fatal(stream.Err())
	}
	s.close()
	if stream.Receive() || connect.CodeOf(stream.Err()) != connect.CodeUnavailable {
		t.Errorf("it ends with %v", stream.Err())
	}
}

func TestShorterLivesOfCertificatesLetNoRemovedMemberBackIn(t *testing.T) {
	s, _ := serveTrust(t)
	set := func(life time.Duration) {
		must(s, s.clusters.UpdateCluster, &warrenv1.UpdateClusterRequest{Spec: &warrenv1.ClusterSpec{CertificateLife: durationpb.New(life)}})
	}
	set(365 * 24 * time.Hour)
	set(time.Hour)
	if until := s.store.Snapshot().Authority().GetLongerLivedUntil().AsTime(); time.Until(until) < 364*24*time.Hour {
		t.Errorf("remembered until %v", until)
	}
}

// TestARemovedManagerSpeaksForNobody: with its certificate it could say that root calls from its machine.
func TestARemovedManagerSpeaksForNobody(t *testing.T) {
	s, trust := serveTrust(t)
	statetest.Put(t, s.store, func() *statev1.Authority {
		kept := s.store.Snapshot().Authority()
		return &statev1.Authority{Meta: kept.GetMeta(), Roots: kept.GetRoots(), SealedKey: kept.GetSealedKey(), Removed: []*statev1.RemovedMember{{Name: "m2"}}}
	}())
	for _, role := range []warrenv1.Role{warrenv1.Role_ROLE_ADMIN, warrenv1.Role_ROLE_AGENT, warrenv1.Role_ROLE_ANONYMOUS} {
		s.caller = caller.Caller{Role: role, Name: "root", Local: true, Via: "m2"}
		_, err := call(s, trust.RotateCA, &warrenv1.RotateCARequest{})
		refused(t, err, connect.CodeUnauthenticated, "was removed")
	}
	s.caller = caller.Caller{Role: warrenv1.Role_ROLE_ADMIN, Name: "root", Local: true, Via: "m1"}
	must(s, trust.RotateCA, &warrenv1.RotateCARequest{})
}

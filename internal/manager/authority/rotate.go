package authority

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/pki"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Rotate begins to replace the CA. From then on the new one issues, and members trust both; control loop
// rotation ends it. Where a replacement is under way it goes on.
func (a *Authority) Rotate(ctx context.Context) error {
	for range maxAttempts {
		old, kept, k, err := a.issuer()
		if err != nil {
			return err
		}
		if Rotating(kept) {
			return nil
		}
		now := time.Now()
		next, bridge, err := old.Successor(now)
		if err != nil {
			return fmt.Errorf("make a new CA: %w", err)
		}
		private, err := next.Key()
		if err != nil {
			return fmt.Errorf("make a new CA: %w", err)
		}
		sealed, err := k.Seal(sealedCAKey, private)
		if err != nil {
			return fmt.Errorf("make a new CA: %w", err)
		}
		t := state.New(now)
		state.Update(t, kept, func(after *statev1.Authority) {
			after.Roots = [][]byte{next.Certificate.Raw, old.Certificate.Raw}
			after.Bridge, after.SealedKey, after.RotationStartedAt = bridge, sealed, timestamppb.New(now)
		})
		results, err := a.proposer.Propose(ctx, t)
		if err != nil || results == nil {
			return err
		}
	}
	return errors.New("the certificate authority is written all the time: try again later")
}

// Rotating tells whether the CA is being replaced.
func Rotating(kept *statev1.Authority) bool { return len(kept.GetRoots()) > 1 }

// IssuerDigest returns the digest of the CA that issues now, empty where there is none.
func IssuerDigest(kept *statev1.Authority) string {
	if all := digests(kept); len(all) > 0 {
		return all[0]
	}
	return ""
}

// digests returns the digests of the CAs that are trusted, the one that issues first.
func digests(kept *statev1.Authority) []string {
	var all []string
	for _, der := range kept.GetRoots() {
		if ca, err := x509.ParseCertificate(der); err == nil {
			all = append(all, pki.Digest(ca))
		}
	}
	return all
}

// Pending iterates over the members that hold up the replacement of the CA as they have no certificate of
// the new one: managers, then agents, each by id. That a manager is down the state does not know.
func Pending(s state.Snapshot) iter.Seq[*warrenv1.PendingMember] {
	return func(yield func(*warrenv1.PendingMember) bool) {
		kept := s.Authority()
		if !Rotating(kept) {
			return
		}
		issuer := IssuerDigest(kept)
		for m := range s.Members() {
			if m.GetIssuer() != issuer && !yield(&warrenv1.PendingMember{
				Role: warrenv1.Role_ROLE_MANAGER, Id: m.GetMeta().GetId(), Hostname: m.GetHostname(),
			}) {
				return
			}
		}
		for n := range s.Nodes() {
			if n.GetStatus().GetIssuer() != issuer && !yield(&warrenv1.PendingMember{
				Role: warrenv1.Role_ROLE_AGENT, Id: n.GetMeta().GetId(), Hostname: n.GetFacts().GetHostname(),
				Down: n.GetStatus().GetState() == warrenv1.NodeState_NODE_STATE_DOWN,
			}) {
				return
			}
		}
	}
}

// Trust tells how the cluster's CAs stand.
func Trust(s state.Snapshot) *warrenv1.Trust {
	kept := s.Authority()
	trust := &warrenv1.Trust{RotationStartedAt: kept.GetRotationStartedAt()}
	for _, der := range kept.GetRoots() {
		if ca, err := x509.ParseCertificate(der); err == nil {
			trust.Authorities = append(trust.Authorities, &warrenv1.CertificateAuthority{
				Digest: pki.Digest(ca), Certificate: der,
				CreatedAt: timestamppb.New(pki.IssuedAt(ca)), ExpiresAt: timestamppb.New(ca.NotAfter),
			})
		}
	}
	if !Rotating(kept) {
		return trust
	}
	trust.Pending = slices.Collect(Pending(s))
	members := 0
	for range s.Members() {
		members++
	}
	for range s.Nodes() {
		members++
	}
	trust.Renewed = uint32(members - len(trust.Pending))
	return trust
}

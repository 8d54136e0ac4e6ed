package manager

import (
	"context"
	"time"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/pki"
)

// The wait before a certificate that could not be renewed is tried again: the shortest, doubling up to the
// longest.
const (
	shortestRenewal = time.Second
	longestRenewal  = time.Minute
)

// lookAtClock bounds how long the time of renewal is left to a timer: a clock that is set, or a machine
// that sleeps, makes timers late.
const lookAtClock = time.Hour

// need is what a manager's certificate needs.
type need int

const (
	needNothing need = iota // until it is to be renewed
	needState               // until the state is known
	needTrust               // the CAs are others
	needRenewal             // now
)

// needOf tells what a certificate needs to be what the state asks for. A state from before what the
// certificate knows comes by at every start, when the log is read again, and asks for nothing.
func needOf(s state.Snapshot, mine *pki.Credentials) need {
	cluster, kept := s.Cluster(), s.Authority()
	switch {
	case cluster == nil || kept == nil:
		return needState
	case mine == nil || mine.Identity().Cluster != cluster.GetMeta().GetId():
		return needRenewal
	case mine.Ahead(kept.GetRoots()):
		return needState
	case !mine.IssuedBy(kept.GetRoots()[0]):
		return needRenewal
	case !mine.Trusts(kept.GetRoots(), kept.GetBridge()):
		return needTrust
	}
	return needNothing
}

// keepCertificate keeps the manager's certificate good until ctx ends, whether it leads or not: every
// manager holds the cluster's key, and issues its own. It is renewed in time and when the CA is replaced; the
// one who announces the manager notices. A manager that was killed after it had founded its cluster and
// before it had a certificate gets one here.
func (m *Manager) keepCertificate(ctx context.Context) {
	k := certificateKeeper{manager: m}
	for snapshot, feed := m.store.Watch(); ; snapshot = feed.Take().Snapshot {
		timer := time.NewTimer(min(k.tend(snapshot), lookAtClock))
		select {
		case <-feed.Ready():
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// certificateKeeper is what keepCertificate remembers.
type certificateKeeper struct {
	manager *Manager

	of      *pki.Credentials // whose time of renewal is renewAt
	renewAt time.Time
	wait    time.Duration // after the last failure, 0 where there was none
	retryAt time.Time
}

// tend does what the certificate needs, and returns in how long to look again if nothing changes.
func (k *certificateKeeper) tend(s state.Snapshot) time.Duration {
	m := k.manager
	// Initialize, which makes the first certificate, may not be through.
	m.founding.Lock()
	defer m.founding.Unlock()
	now := time.Now()
	if left := k.retryAt.Sub(now); left > 0 {
		return left
	}
	mine := m.credentials.Get()
	if mine != k.of {
		k.of, k.renewAt = mine, time.Time{}
		if mine != nil {
			// Not at once, however little life the CA had left to give.
			k.renewAt = mine.RenewAt()
			if soonest := now.Add(shortestRenewal); k.renewAt.Before(soonest) {
				k.renewAt = soonest
			}
		}
	}
	due := needOf(s, mine)
	if due == needNothing && !now.Before(k.renewAt) {
		due = needRenewal
	}
	switch due {
	case needNothing:
		return k.renewAt.Sub(now)
	case needState:
		return lookAtClock
	}
	if err := k.do(s, mine, due, now); err != nil {
		k.wait = min(max(2*k.wait, shortestRenewal), longestRenewal)
		k.retryAt = now.Add(k.wait)
		m.logger.Warn("the manager's certificate is not what it should be; tried again", "error", err, "wait", k.wait)
		return k.wait
	}
	k.wait, k.retryAt = 0, time.Time{}
	return 0 // to look at what there is now
}

func (k *certificateKeeper) do(s state.Snapshot, mine *pki.Credentials, due need, now time.Time) error {
	if due == needTrust {
		kept := s.Authority()
		believing, err := mine.Trusting(kept.GetRoots(), kept.GetBridge())
		if err != nil {
			return err
		}
		return k.manager.adopt(believing)
	}
	return k.manager.renew(now)
}

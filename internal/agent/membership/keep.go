package membership

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	// The wait before a renewal that failed is tried again: the shortest, doubling up to the longest.
	shortestRetry = time.Second
	longestRetry  = 5 * time.Minute
	// lookAgain is how long a wait for the time of renewal is at most: a clock may be set meanwhile.
	lookAgain = time.Hour
)

// Keep keeps the certificate good until ctx ends or there is none any more: it renews it in time, and follows
// the CA when that is replaced.
func (m *Membership) Keep(ctx context.Context) {
	for ctx.Err() == nil {
		changed := m.watch()
		mine := m.holder.Get()
		if mine == nil {
			return
		}
		if !m.keep(ctx, mine, changed) {
			return
		}
	}
}

// keep looks after credentials until others take their place; false when ctx ends.
func (m *Membership) keep(ctx context.Context, mine *pki.Credentials, changed <-chan struct{}) bool {
	due, retry := mine.RenewAt(), shortestRetry
	if !mine.Current() {
		due = time.Now()
	}
	for {
		timer := time.NewTimer(min(time.Until(due), lookAgain))
		select {
		case <-changed:
			timer.Stop()
			return true
		case <-ctx.Done():
			timer.Stop()
			return false
		case d := <-m.told:
			timer.Stop()
			if err := m.trust(ctx, d); err != nil && ctx.Err() == nil {
				m.Logger.Error("cannot follow the cluster's change of CA", "error", err)
			}
			continue // what has changed is seen above
		case <-timer.C:
		}
		if time.Now().Before(due) {
			continue
		}
		err := m.Renew(ctx)
		switch {
		case err == nil:
			return true
		case ctx.Err() != nil:
			return false
		}
		m.Logger.Warn("cannot renew the certificate yet", "error", err, "expires", mine.NotAfter(), "retry", retry)
		due = time.Now().Add(retry/2 + rand.N(retry/2))
		retry = min(2*retry, longestRetry, max(shortestRetry, time.Until(mine.NotAfter())/8))
	}
}

// trust takes the CAs that the cluster has told, where they are others than before.
func (m *Membership) trust(ctx context.Context, d *warrenv1.Directory) error {
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.give()
	mine := m.holder.Get()
	if mine == nil || mine.Trusts(d.GetRoots(), d.GetBridge()) {
		return nil
	}
	after, err := mine.Trusting(d.GetRoots(), d.GetBridge())
	if err != nil {
		return err
	}
	if err := after.Save(m.path()); err != nil {
		return err
	}
	m.set(after)
	m.Logger.Info("the cluster's CAs have changed", "cas", len(after.Roots()), "current", after.Current())
	return nil
}

// Renew asks the managers in turn for a new certificate for the same key, and so of the same name.
func (m *Membership) Renew(ctx context.Context) error {
	if err := m.take(ctx); err != nil {
		return err
	}
	defer m.give()
	mine := m.holder.Get()
	if mine == nil {
		return pki.ErrNone
	}
	var failures refusals
	for _, manager := range m.Addrs() {
		answer, err := m.askAgain(ctx, manager, mine)
		if err == nil {
			return m.renewed(mine, answer)
		}
		failures = append(failures, refusal{manager, err})
		if ctx.Err() != nil || final(err) {
			break
		}
	}
	return failures.explain("renew the certificate")
}

func (m *Membership) askAgain(ctx context.Context, manager string, mine *pki.Credentials) (*warrenv1.RenewResponse, error) {
	request, err := pki.NewRequest(mine.Key(), time.Now())
	if err != nil {
		return nil, err
	}
	client, hangUp := dial(manager, m.holder.ClientConfig())
	defer hangUp()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := client.Renew(ctx, connect.NewRequest(&warrenv1.RenewRequest{Certificate: request}))
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

// renewed puts a manager's answer in force.
func (m *Membership) renewed(before *pki.Credentials, answer *warrenv1.RenewResponse) error {
	after, err := pki.New(before.Key(), answer.GetCertificate(), answer.GetRoots(), answer.GetBridge())
	if err == nil && after.Identity() != before.Identity() {
		err = fmt.Errorf("the certificate is for %v, not for %v", after.Identity(), before.Identity())
	}
	if err == nil {
		err = after.Save(m.path())
	}
	if err != nil {
		return fmt.Errorf("renew the certificate: %w", err)
	}
	m.set(after)
	m.Logger.Info("certificate renewed", "expires", after.NotAfter())
	if before.Issuer(before.Certificate()) != after.Issuer(after.Certificate()) {
		// The session was opened with a certificate of a CA that goes.
		select {
		case m.fresh <- struct{}{}:
		default: // it is to be opened anew already
		}
	}
	return nil
}

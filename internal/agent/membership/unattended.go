package membership

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"time"
)

const (
	// The wait before joining unattended is tried again: the shortest, doubling up to the longest.
	shortestJoinWait = time.Second
	longestJoinWait  = 30 * time.Second
	// maxTokenFile is more than any file with a token has.
	maxTokenFile = 4 << 10
)

// Unattended is what a machine is configured with that joins by itself.
type Unattended struct {
	// Token is the join token, or TokenFile a file that holds it, which is read anew at every try.
	Token, TokenFile string
	Managers         []string
}

// Given tells whether there is anything to join with.
func (u Unattended) Given() bool { return u.Token != "" || u.TokenFile != "" }

func (u Unattended) token() (string, error) {
	if u.Token != "" {
		return u.Token, nil
	}
	f, err := os.Open(u.TokenFile)
	if err != nil {
		return "", fmt.Errorf("read the join token: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxTokenFile))
	if err != nil {
		return "", fmt.Errorf("read the join token: %w", err)
	}
	return string(text), nil
}

// JoinUnattended joins as often as it takes, until this machine is a member or ctx ends. It tells problem
// why it is not one yet, and nil in the end.
func (m *Membership) JoinUnattended(ctx context.Context, u Unattended, problem func(error)) {
	defer problem(nil)
	last := ""
	for wait := shortestJoinWait; ; wait = min(2*wait, longestJoinWait) {
		changed := m.watch()
		token, err := u.token()
		if err != nil && m.holder.Get() != nil {
			return // it has done its part
		}
		if err == nil {
			_, err = m.Join(ctx, token, u.Managers)
		}
		switch {
		case err == nil || ctx.Err() != nil:
			return
		case m.holder.Get() != nil: // it was let in elsewhere, or before
			m.Logger.Warn("the configured join token is not used", "error", err)
			return
		}
		problem(err)
		if text := err.Error(); text != last {
			last = text
			m.Logger.Warn("cannot join the cluster yet; trying again until it works", "error", err)
		}
		timer := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

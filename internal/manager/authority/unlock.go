package authority

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cuemby/warren/internal/manager/state"
	"github.com/cuemby/warren/internal/unlockkey"
	statev1 "github.com/cuemby/warren/proto/warren/state/v1"
)

// ErrNoAutolock says that there is no unlock key.
var ErrNoAutolock = errors.New("the cluster has no autolock, so there is no key that unlocks its managers: " +
	"`warrenctl cluster update --autolock=true` turns it on")

const sealedUnlockKey = "unlock key"

// ClusterKey returns the key that the authority was given, false where it has none.
func (a *Authority) ClusterKey() (Key, bool) {
	if k := a.key.Load(); k != nil {
		return *k, true
	}
	return Key{}, false
}

// Lock draws a new unlock key for an authority that is about to be written.
func Lock(kept *statev1.Authority, k Key) (unlockkey.Key, error) {
	drawn := unlockkey.New()
	sealed, err := k.Seal(sealedUnlockKey, drawn.Secret())
	if err != nil {
		return unlockkey.Key{}, fmt.Errorf("make an unlock key: %w", err)
	}
	kept.SealedUnlockKey = sealed
	return drawn, nil
}

// UnlockKeyOf returns the unlock key that an authority keeps, nil without autolock.
func UnlockKeyOf(kept *statev1.Authority, k Key) (*unlockkey.Key, error) {
	if len(kept.GetSealedUnlockKey()) == 0 {
		return nil, nil
	}
	secret, err := k.Open(sealedUnlockKey, kept.GetSealedUnlockKey())
	if err != nil {
		return nil, err
	}
	key, err := unlockkey.FromSecret(secret)
	if err != nil {
		return nil, err
	}
	return &key, nil
}

// Autolock adds to a transaction that the cluster has autolock, with a new key, or has it not. It adds
// nothing where that is so already.
func (a *Authority) Autolock(t *state.Transaction, s state.Snapshot, on bool) error {
	kept := s.Authority()
	if kept == nil || on == (len(kept.GetSealedUnlockKey()) > 0) {
		return nil
	}
	if !on {
		state.Update(t, kept, func(after *statev1.Authority) { after.SealedUnlockKey = nil })
		return nil
	}
	k, ok := a.ClusterKey()
	if !ok {
		return errNoKey
	}
	var err error
	state.Update(t, kept, func(after *statev1.Authority) { _, err = Lock(after, k) })
	return err
}

// UnlockKey returns the key that unlocks managers, a new one where rotate asks for it. It fails with
// ErrNoAutolock.
func (a *Authority) UnlockKey(ctx context.Context, rotate bool) (unlockkey.Key, error) {
	for range maxAttempts {
		kept := a.store.Snapshot().Authority()
		k, ok := a.ClusterKey()
		if !ok {
			return unlockkey.Key{}, errNoKey
		}
		current, err := UnlockKeyOf(kept, k)
		if err != nil {
			return unlockkey.Key{}, err
		}
		if current == nil {
			return unlockkey.Key{}, ErrNoAutolock
		}
		if !rotate {
			return *current, nil
		}
		var drawn unlockkey.Key
		t := state.New(time.Now())
		state.Update(t, kept, func(after *statev1.Authority) { drawn, err = Lock(after, k) })
		if err != nil {
			return unlockkey.Key{}, err
		}
		results, err := a.proposer.Propose(ctx, t)
		if err != nil {
			return unlockkey.Key{}, err
		}
		if results == nil {
			return drawn, nil
		}
	}
	return unlockkey.Key{}, errors.New("the cluster's keys are written all the time: try again later")
}

// Fits tells whether a key opens what an authority keeps sealed.
func Fits(kept *statev1.Authority, k Key) error {
	if kept == nil {
		return errors.New("there is no certificate authority")
	}
	_, err := k.Open(sealedCAKey, kept.GetSealedKey())
	return err
}

package contexts

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

const (
	// refreshPause is the time between two looks at the managers' addresses, renewPause between two
	// renewals, and retryPause after a renewal that failed.
	refreshPause = 24 * time.Hour
	renewPause   = 24 * time.Hour
	retryPause   = time.Hour
	// keepTimeout bounds all of a Keeper's calls, patience how long a command that is done waits for them.
	keepTimeout = 15 * time.Second
	patience    = 3 * time.Second
	// warnBefore is how long before its end a certificate that was not renewed is warned of.
	warnBefore = 14 * 24 * time.Hour
)

// Managers are what a Keeper asks.
type Managers interface {
	Renew(context.Context, *connect.Request[warrenv1.RenewRequest]) (*connect.Response[warrenv1.RenewResponse], error)
	GetCluster(context.Context, *connect.Request[warrenv1.GetClusterRequest]) (*connect.Response[warrenv1.GetClusterResponse], error)
}

// Keeper keeps a context fresh while a command uses it: it renews the certificate when two thirds of its
// life are over, or when the cluster's CA is being replaced, and asks for the managers' addresses once a
// day.
type Keeper struct {
	store    *Store
	name     string
	now      func() time.Time
	context  *Context
	managers Managers
	ctx      context.Context
	cancel   context.CancelFunc
	began    sync.Once
	running  sync.WaitGroup
	failed   error // for Close, once nothing runs any more
}

// NewKeeper returns the keeper of a context in a store.
func NewKeeper(store *Store, name string, c *Context, now func() time.Time) *Keeper {
	k := &Keeper{store: store, name: name, context: c, now: now}
	k.ctx, k.cancel = context.WithTimeout(context.Background(), keepTimeout)
	return k
}

// Ask says who is to be asked. It must be called before Saw.
func (k *Keeper) Ask(m Managers) { k.managers = m }

// Saw is told that a manager was reached and showed this certificate. The first time it begins, beside the
// command, what is due; it does not wait.
func (k *Keeper) Saw(leaf *x509.Certificate) {
	k.began.Do(func() {
		now := k.now()
		renew := k.renewalDue(leaf, now)
		if !renew && now.Before(k.context.RefreshAfter) {
			return
		}
		k.running.Go(func() { k.failed = k.keep(renew, now) })
	})
}

// renewalDue tells whether the certificate is to be renewed now.
func (k *Keeper) renewalDue(leaf *x509.Certificate, now time.Time) bool {
	c := k.context.Credentials
	if now.Before(k.context.RenewAfter) || now.After(c.NotAfter()) {
		return false
	}
	roots := c.Roots()
	// With the first of two CAs one that is on its way out is trusted still; a manager's certificate that
	// another CA than the first has issued tells of one that is coming.
	replaced := len(roots) > 1 || c.Issuer(leaf) != pki.Digest(roots[0])
	return replaced || now.After(c.IssuedAt().Add(life(c)*2/3))
}

func life(c *pki.Credentials) time.Duration { return c.NotAfter().Sub(c.IssuedAt()) }

func (k *Keeper) keep(renew bool, now time.Time) error {
	// Commands that run at the same time see by this that one has taken it on.
	err := k.update(func(c *Context) {
		c.RefreshAfter = now.Add(refreshPause)
		if renew {
			c.RenewAfter = now.Add(min(retryPause, life(c.Credentials)/24))
		}
	})
	if err != nil {
		return err
	}
	if renew {
		return k.renew(now)
	}
	return k.refresh()
}

func (k *Keeper) renew(now time.Time) error {
	was := k.context.Credentials
	asked, err := pki.NewRequest(was.Key(), now)
	if err != nil {
		return err
	}
	res, err := k.managers.Renew(k.ctx, connect.NewRequest(&warrenv1.RenewRequest{Certificate: asked}))
	if err != nil {
		return err
	}
	renewed, err := pki.New(was.Key(), res.Msg.GetCertificate(), res.Msg.GetRoots(), res.Msg.GetBridge())
	if err == nil && renewed.Identity() != was.Identity() {
		err = fmt.Errorf("it is for %+v", renewed.Identity())
	}
	if err != nil {
		return fmt.Errorf("the manager's certificate is of no use: %w", err)
	}
	return k.update(func(c *Context) {
		c.Credentials = renewed
		c.RenewAfter = now.Add(min(renewPause, life(renewed)/6))
		if m := res.Msg.GetManagers(); len(m) > 0 {
			c.Managers = m
		}
	})
}

func (k *Keeper) refresh() error {
	res, err := k.managers.GetCluster(k.ctx, connect.NewRequest(&warrenv1.GetClusterRequest{}))
	if err != nil {
		return err
	}
	var addrs []string
	for _, m := range res.Msg.GetManagers() {
		if m.GetAddr() != "" {
			addrs = append(addrs, m.GetAddr())
		}
	}
	return k.update(func(c *Context) {
		if len(addrs) > 0 {
			c.Managers = addrs
		}
		if name := res.Msg.GetCluster().GetSpec().GetName(); name != "" {
			c.ClusterName = name
		}
	})
}

// update edits the context as it is kept now, which another command may have written meanwhile.
func (k *Keeper) update(edit func(*Context)) error {
	c, err := k.store.Load(k.name)
	if err != nil {
		return err
	}
	if c.Identity() != k.context.Identity() || !c.Credentials.Key().Equal(k.context.Credentials.Key()) {
		return errors.New("it was replaced by another meanwhile")
	}
	edit(c)
	if err := k.store.Replace(k.name, c); err != nil {
		return err
	}
	k.context = c
	return nil
}

// Close waits a little for what has begun and returns what the user is to be warned of, empty if nothing.
func (k *Keeper) Close() (warning string) {
	stop := time.AfterFunc(patience, k.cancel)
	k.running.Wait()
	stop.Stop()
	k.cancel()
	c := k.context.Credentials
	left := c.NotAfter().Sub(k.now())
	if left <= 0 || left > min(warnBefore, life(c)/6) {
		return ""
	}
	why := ""
	if k.failed != nil {
		why = ": " + message(k.failed)
	}
	who := k.context.Identity()
	return fmt.Sprintf("the certificate of context %s expires in %s and could not be renewed%s: before then an administrator should make "+
		"user %s anew (`warrenctl user rm %s`, then `warrenctl user create %s --role %s`)",
		k.name, left.Round(time.Minute), why, who.Name, who.Name, who.Name, pki.RoleName(who.Role))
}

// message is what an error says, without its code.
func message(err error) string {
	if ce := new(connect.Error); errors.As(err, &ce) {
		return ce.Message()
	}
	return err.Error()
}

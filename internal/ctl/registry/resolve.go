package registry

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

const (
	// wholeTime bounds everything, also a registry that answers slowly.
	wholeTime = 3 * time.Second
	// connectTime bounds looking a registry's name up and connecting: one that is there does both in a fraction.
	connectTime = time.Second
	// reservedTime does so for names that no DNS server knows (RFC 2606): an /etc/hosts may.
	reservedTime = 250 * time.Millisecond
)

// Resolve returns image, NAME[:TAG], with the digest that its tag stands for now: NAME:TAG@sha256:…. An image with
// a digest is returned as it is. The error says in one line why it is not known.
func Resolve(ctx context.Context, image string) (string, error) {
	if strings.Contains(image, "@") {
		return image, nil
	}
	tag, err := name.NewTag(image)
	if err != nil {
		return "", fmt.Errorf("%s is not the name of an image: %w", image, err)
	}
	ctx, cancel := context.WithTimeout(ctx, wholeTime)
	defer cancel()
	t := &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dial, TLSHandshakeTimeout: connectTime, DisableKeepAlives: true}
	options := []remote.Option{
		remote.WithContext(ctx), remote.WithTransport(t), remote.WithAuthFromKeychain(authn.DefaultKeychain), remote.WithUserAgent("warrenctl"),
		remote.WithRetryPredicate(func(error) bool { return false }), remote.WithRetryStatusCodes(),
	}
	digest, err := digestOf(tag, options)
	if err != nil {
		return "", fmt.Errorf("%s: %w", tag.RegistryStr(), brief(ctx, err))
	}
	tagged := image
	if !strings.HasSuffix(image, ":"+tag.TagStr()) {
		tagged += ":" + tag.TagStr()
	}
	return tagged + "@" + digest, nil
}

// digestOf asks for the head of the manifest, and for all of it where a registry tells no digest there, or no
// reason for what it refuses.
func digestOf(tag name.Tag, options []remote.Option) (string, error) {
	head, err := remote.Head(tag, options...)
	if err == nil {
		return head.Digest.String(), nil
	}
	if op := new(net.OpError); errors.As(err, &op) || errors.Is(err, context.DeadlineExceeded) {
		return "", err
	}
	whole, err := remote.Get(tag, options...)
	if err != nil {
		return "", err
	}
	return whole.Digest.String(), nil
}

// dial connects, or finds out soon that it cannot.
func dial(ctx context.Context, network, addr string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	d := net.Dialer{Timeout: connectTime}
	switch top := host[strings.LastIndexByte(host, '.')+1:]; top {
	case "invalid":
		return nil, &net.OpError{Op: "dial", Net: network, Err: &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}}
	case "test", "example":
		d.Timeout = reservedTime
	}
	return d.DialContext(ctx, network, addr)
}

// brief says in one line why a registry did not tell.
func brief(ctx context.Context, err error) error {
	var refused *transport.Error
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &refused) && refused.StatusCode == http.StatusNotFound:
		return errors.New("there is no such image")
	case errors.As(err, &refused) && (refused.StatusCode == http.StatusUnauthorized || refused.StatusCode == http.StatusForbidden):
		return errors.New("it does not let you look, or there is no such image: is `docker login` due?")
	case errors.As(err, &refused) && len(refused.Errors) > 0:
		return fmt.Errorf("%d %s", refused.StatusCode, refused.Errors[0].Message)
	case errors.As(err, &refused):
		return fmt.Errorf("status %d", refused.StatusCode)
	case errors.As(err, &dns) && dns.IsTimeout:
		return errors.New("no name server answers in time")
	case errors.As(err, &dns):
		return errors.New("no address is known")
	case ctx.Err() != nil, errors.As(err, &op) && op.Timeout():
		return errors.New("it does not answer in time")
	case errors.As(err, &op):
		return op.Err
	default:
		return err
	}
}

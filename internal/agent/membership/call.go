package membership

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"

	"github.com/cuemby/warren/internal/pki"
	"github.com/cuemby/warren/proto/warren/v1/warrenv1connect"
)

const (
	// dialTimeout bounds how long a manager that does not answer keeps the others from being tried.
	dialTimeout = 3 * time.Second
	// askTimeout bounds a whole call. A manager waits for an election that is under way.
	askTimeout = 15 * time.Second
	// maxAnswerBytes is more than any answer has.
	maxAnswerBytes = 256 << 10
)

// dial makes the client of one manager, for a call or two.
func dial(manager string, config *tls.Config) (client warrenv1connect.MembershipServiceClient, hangUp func()) {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	transport := &http.Transport{
		Protocols:           protocols,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSClientConfig:     config,
		TLSHandshakeTimeout: dialTimeout,
	}
	client = warrenv1connect.NewMembershipServiceClient(&http.Client{Transport: transport}, "https://"+manager,
		connect.WithReadMaxBytes(maxAnswerBytes))
	return client, transport.CloseIdleConnections
}

// explain words for people why a manager did not do what was asked.
func explain(manager string, err error) (connect.Code, string) {
	if ce := new(connect.Error); errors.As(err, &ce) && connect.IsWireError(err) {
		if ce.Code() == connect.CodeUnimplemented {
			return ce.Code(), fmt.Sprintf("%s: what answers there is not a warren-manager of this release", manager)
		}
		return ce.Code(), fmt.Sprintf("manager %s: %s", manager, ce.Message())
	}
	code, why := connect.CodeUnavailable, reason(err)
	switch {
	case errors.Is(err, pki.ErrForeign):
		code = connect.CodeUnauthenticated
	case errors.Is(err, pki.ErrNotYetValid), errors.Is(err, pki.ErrExpired):
		code = connect.CodeFailedPrecondition
	}
	return code, manager + ": " + why
}

// reason says why no manager's answer came.
func reason(err error) string {
	var op *net.OpError
	var dns *net.DNSError
	var record tls.RecordHeaderError
	switch {
	case errors.Is(err, pki.ErrPinned), errors.Is(err, pki.ErrNotYetValid): // which say what to do
		return trust(err).Error()
	case errors.Is(err, pki.ErrForeign):
		return fmt.Sprintf("%v: check the address, and get a new token with `warrenctl cluster join-token worker` there", trust(err))
	case errors.Is(err, pki.ErrExpired):
		return fmt.Sprintf("%v: if this machine's clock is wrong, set it (NTP); else the manager cannot renew its certificate", trust(err))
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response"):
		return "what answers there does not speak TLS, as managers do: is it the right port?"
	case strings.Contains(err.Error(), "remote error: tls: internal error"):
		return "the manager is not part of a cluster yet: run `warrenctl cluster init` on its machine first"
	case errors.As(err, &dns):
		return fmt.Sprintf("no address is known for %s: check the name", dns.Name)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused: is warren-manager running there, and on this port?"
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &op) && op.Timeout(), strings.Contains(err.Error(), "TLS handshake timeout"):
		return "no answer: is the machine up, and does a firewall let the port through?"
	}
	if ce := new(connect.Error); errors.As(err, &ce) {
		return ce.Message()
	}
	return err.Error()
}

// trust returns what package pki said of a certificate, without what the layers between have added.
func trust(err error) error {
	for at := err; at != nil; at = errors.Unwrap(at) {
		text := at.Error()
		if strings.HasPrefix(text, "whoever answers") || strings.HasPrefix(text, "the certificate") {
			return at
		}
	}
	return err
}

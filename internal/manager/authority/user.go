package authority

import (
	"crypto/x509"
	"fmt"
	"time"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// UserGrant is what a user is given.
type UserGrant struct {
	Grant
	// KeyDigest is the digest of the key that the certificate is for, as in warrenv1.User.
	KeyDigest []byte
	Expires   time.Time
}

// IssueToUser gives whoever made a request a certificate for a user's name and role that is good for life.
// Whether there is such a user, and with this key, is for the caller to know. It fails with
// pki.ErrClock or pki.ErrRequest.
func (a *Authority) IssueToUser(name string, role warrenv1.Role, request *warrenv1.CertificateRequest, life time.Duration, now time.Time) (UserGrant, error) {
	public, err := pki.Check(request, now)
	if err != nil {
		return UserGrant{}, err
	}
	digest, err := keyDigest(public)
	if err != nil {
		return UserGrant{}, err
	}
	grant, err := a.issue(public, role, name, life, now)
	if err != nil {
		return UserGrant{}, err
	}
	certificate, err := x509.ParseCertificate(grant.Certificate)
	if err != nil {
		return UserGrant{}, fmt.Errorf("read the certificate just issued: %w", err)
	}
	return UserGrant{Grant: grant, KeyDigest: digest, Expires: certificate.NotAfter}, nil
}

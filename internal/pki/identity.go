package pki

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"errors"
	"fmt"

	"github.com/cuemby/warren/internal/id"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// Identity is who a certificate says its holder is.
type Identity struct {
	// Cluster is the id of the cluster, the subject's organization.
	Cluster string
	// Role is what the holder may be, the subject's organizational unit.
	Role warrenv1.Role
	// Name is a node's or manager's id, or a user's name: the subject's common name.
	Name string
}

// roleNames are the roles that have certificates, as subjects spell them.
var roleNames = map[warrenv1.Role]string{
	warrenv1.Role_ROLE_VIEWER:   "viewer",
	warrenv1.Role_ROLE_OPERATOR: "operator",
	warrenv1.Role_ROLE_ADMIN:    "admin",
	warrenv1.Role_ROLE_AGENT:    "agent",
	warrenv1.Role_ROLE_MANAGER:  "manager",
}

// RoleName returns a role as certificates and people spell it, empty for one that has no certificate.
func RoleName(r warrenv1.Role) string { return roleNames[r] }

// ParseRole returns the role of that name. Workers are what users of Docker Swarm call agents.
func ParseRole(name string) (warrenv1.Role, error) {
	if name == "worker" {
		return warrenv1.Role_ROLE_AGENT, nil
	}
	for r, known := range roleNames {
		if known == name {
			return r, nil
		}
	}
	return 0, fmt.Errorf("%q is not a role: use viewer, operator, admin, agent or manager", name)
}

func (i Identity) subject() pkix.Name {
	return pkix.Name{Organization: []string{i.Cluster}, OrganizationalUnit: []string{roleNames[i.Role]}, CommonName: i.Name}
}

// IdentityOf reads who a certificate is for. It does not verify the certificate.
func IdentityOf(cert *x509.Certificate) (Identity, error) {
	s := cert.Subject
	if len(s.Organization) != 1 || len(s.OrganizationalUnit) != 1 || s.CommonName == "" || s.Organization[0] == "" {
		return Identity{}, errors.New("the certificate is not one of a Warren cluster")
	}
	role, err := ParseRole(s.OrganizationalUnit[0])
	if err != nil || roleNames[role] != s.OrganizationalUnit[0] {
		return Identity{}, fmt.Errorf("the certificate names no role that is known: %q", s.OrganizationalUnit[0])
	}
	return Identity{Cluster: s.Organization[0], Role: role, Name: s.CommonName}, nil
}

var lowerBase32 = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NameOf returns the name that a machine with this public key has in the cluster, in the form of
// package id. That it follows from the key keeps anybody with another key from taking it.
func NameOf(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encode the public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return lowerBase32.EncodeToString(sum[:])[:id.Length], nil
}

// KeyDigest returns the digest of a certificate's public key: SHA-256 of its SubjectPublicKeyInfo.
func KeyDigest(cert *x509.Certificate) []byte {
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	return sum[:]
}

// Digest returns the digest of a CA certificate by which a join token pins it: SHA-256 in lower-case
// base32, 52 characters.
func Digest(ca *x509.Certificate) string {
	sum := sha256.Sum256(ca.Raw)
	return lowerBase32.EncodeToString(sum[:])
}

// IsDigest tells whether s has the form of a Digest. Base32 of 32 bytes leaves some bits of its last letter
// unused, and Go's decoder skips line breaks: only the one spelling that Digest writes will do.
func IsDigest(s string) bool {
	sum, err := lowerBase32.DecodeString(s)
	return err == nil && len(sum) == sha256.Size && s == lowerBase32.EncodeToString(sum)
}

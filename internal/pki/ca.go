package pki

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"net"
	"regexp"
	"time"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// caLife is how long a CA certificate is good. It is replaced by rotation, not by age.
const caLife = 20 * 365 * 24 * time.Hour

// backdate keeps a certificate from being refused by a member whose clock is behind.
const backdate = time.Hour

// CA issues certificates.
type CA struct {
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// NewCA makes the CA of a cluster.
func NewCA(cluster string, now time.Time) (*CA, error) {
	return newCA(cluster, now.Add(-backdate), now)
}

// newCA makes a CA whose certificate is good from a time on.
func newCA(cluster string, from, now time.Time) (*CA, error) {
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{Organization: []string{cluster}, CommonName: "Warren CA"},
		NotBefore:             from,
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLen:            1, // one more CA stands between while this one is replaced
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, fmt.Errorf("make a CA certificate: %w", err)
	}
	return LoadCA(der, key)
}

// Successor makes the CA that replaces this one, and the Bridge to it. Its certificate begins later than
// this one's whatever the clock says, by which members know which of two is the newer (Credentials.Ahead).
func (ca *CA) Successor(now time.Time) (next *CA, bridge []byte, err error) {
	from := now.Add(-backdate)
	if earliest := ca.Certificate.NotBefore.Add(time.Second); from.Before(earliest) {
		from = earliest
	}
	if next, err = newCA(ca.Certificate.Subject.Organization[0], from, now); err != nil {
		return nil, nil, err
	}
	if bridge, err = ca.Bridge(next.Certificate); err != nil {
		return nil, nil, err
	}
	return next, bridge, nil
}

// LoadCA returns the CA of a certificate in DER and its key.
func LoadCA(der []byte, key *ecdsa.PrivateKey) (*CA, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read the CA certificate: %w", err)
	}
	if public, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(&key.PublicKey) {
		return nil, fmt.Errorf("the CA's key does not belong to its certificate")
	}
	return &CA{Certificate: cert, key: key}, nil
}

// Bridge returns a certificate in DER of another CA's key and name, issued by this one: who trusts this CA
// alone believes by it what the other issues.
func (ca *CA) Bridge(to *x509.Certificate) ([]byte, error) {
	template := &x509.Certificate{
		Subject:               to.Subject,
		SubjectKeyId:          to.SubjectKeyId,
		AuthorityKeyId:        ca.Certificate.SubjectKeyId, // both CAs have the same name: this tells them apart
		NotBefore:             to.NotBefore,
		NotAfter:              ca.Certificate.NotAfter,
		KeyUsage:              to.KeyUsage,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate, to.PublicKey, ca.key)
	if err != nil {
		return nil, fmt.Errorf("have the old CA sign the new one: %w", err)
	}
	return der, nil
}

// Key returns the private key in PKCS #8, for keeping it sealed.
func (ca *CA) Key() ([]byte, error) { return x509.MarshalPKCS8PrivateKey(ca.key) }

// ParseKey reads a private key that Key wrote.
func ParseKey(pkcs8 []byte) (*ecdsa.PrivateKey, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(pkcs8)
	if err != nil {
		return nil, fmt.Errorf("read a private key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read a private key: it is a %T, not ECDSA", parsed)
	}
	return key, nil
}

// Issue returns a certificate in DER that says that the holder of a key is who, for as long as life from
// now on. Hosts, names or addresses, are what others may call a server by; members do not need them.
func (ca *CA) Issue(key *ecdsa.PublicKey, who Identity, life time.Duration, now time.Time, hosts ...string) ([]byte, error) {
	if RoleName(who.Role) == "" || who.Name == "" || who.Cluster == "" {
		return nil, fmt.Errorf("issue a certificate: nobody can be %v %q of cluster %q", who.Role, who.Name, who.Cluster)
	}
	template := &x509.Certificate{
		Subject:     who.subject(),
		NotBefore:   later(now.Add(-backdate), ca.Certificate.NotBefore),
		NotAfter:    earlier(now.Add(life), ca.Certificate.NotAfter), // nothing is believed longer than who says it
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	if who.Role == warrenv1.Role_ROLE_MANAGER {
		template.ExtKeyUsage = append(template.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if isDNSName(host) {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate, key, ca.key)
	if err != nil {
		return nil, fmt.Errorf("issue a certificate: %w", err)
	}
	return der, nil
}

// dnsName is what a certificate can hold and a client can look for. A machine's name may be anything.
var dnsName = regexp.MustCompile(`^[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*$`)

func isDNSName(host string) bool { return len(host) <= 253 && dnsName.MatchString(host) }

// IssuedAt is when a certificate of NewCA or Issue was made.
func IssuedAt(cert *x509.Certificate) time.Time { return cert.NotBefore.Add(backdate) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

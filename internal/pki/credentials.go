package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"slices"
	"time"
)

// Credentials are a member's key and certificate, and the CAs it trusts. They never change: renewal makes
// new ones.
type Credentials struct {
	identity    Identity
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	roots       []*x509.Certificate
	bridge      []byte // in DER; nil but while the CA is replaced
	pool        *x509.CertPool
	tls         tls.Certificate
}

// maxRoots bounds how many CAs can be trusted at once. Two are while one is replaced.
const maxRoots = 8

// New puts credentials together: a certificate and the CAs, in DER, for a key. While the CA is replaced
// there is a bridge too (CA.Bridge), which is shown along. It fails where they do not belong together.
func New(key *ecdsa.PrivateKey, certificate []byte, roots [][]byte, bridge []byte) (*Credentials, error) {
	c := &Credentials{key: key, bridge: bridge, pool: x509.NewCertPool()}
	var err error
	if c.certificate, err = x509.ParseCertificate(certificate); err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	if public, ok := c.certificate.PublicKey.(*ecdsa.PublicKey); !ok || !public.Equal(&key.PublicKey) {
		return nil, errors.New("the certificate is for another key")
	}
	if c.identity, err = IdentityOf(c.certificate); err != nil {
		return nil, err
	}
	if len(roots) == 0 || len(roots) > maxRoots {
		return nil, fmt.Errorf("there are %d CA certificates with the certificate, not 1 to %d", len(roots), maxRoots)
	}
	for _, der := range roots {
		root, err := parseRoot(der)
		if err != nil {
			return nil, err
		}
		c.roots = append(c.roots, root)
		c.pool.AddCert(root)
	}
	if c.Issuer(c.certificate) == "" {
		return nil, errors.New("the certificate was not issued by any of the CAs that come with it")
	}
	if err := c.checkBridge(); err != nil {
		return nil, err
	}
	c.tls = tls.Certificate{Certificate: c.chain(), PrivateKey: key, Leaf: c.certificate}
	return c, nil
}

// parseRoot reads a CA certificate. In a pool of roots any certificate would be believed to be a CA.
func parseRoot(der []byte) (*x509.Certificate, error) {
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read a CA certificate: %w", err)
	}
	if !root.BasicConstraintsValid || !root.IsCA {
		return nil, errors.New("a certificate that is to be trusted as a CA is none")
	}
	return root, nil
}

// checkBridge makes sure that the bridge is one: whoever is shown what cannot be read hangs up.
func (c *Credentials) checkBridge() error {
	if len(c.bridge) == 0 {
		c.bridge = nil
		return nil
	}
	bridge, err := x509.ParseCertificate(c.bridge)
	if err != nil {
		return fmt.Errorf("read the bridge between two CAs: %w", err)
	}
	if !bridge.IsCA || !slices.ContainsFunc(c.roots, func(root *x509.Certificate) bool { return bridge.CheckSignatureFrom(root) == nil }) {
		return errors.New("the bridge between two CAs was made by neither")
	}
	return nil
}

// chain is what is shown: the certificate, then its CA, which a machine that is about to join compares
// with its token. While the CA is replaced, the bridge and the other CA come along, so that who trusts
// the old one alone, or holds a token that names it, can believe a certificate of the new one.
func (c *Credentials) chain() [][]byte {
	chain := [][]byte{c.certificate.Raw}
	var others [][]byte
	for _, root := range c.roots {
		if c.certificate.CheckSignatureFrom(root) == nil {
			chain = append(chain, root.Raw)
		} else {
			others = append(others, root.Raw)
		}
	}
	if c.bridge == nil {
		return chain
	}
	chain = append(append(chain, c.bridge), others...)
	return chain[:min(len(chain), 1+maxBetween)]
}

// Trusting returns credentials with the same key and certificate that trust other CAs. It fails where
// the certificate was issued by none of them.
func (c *Credentials) Trusting(roots [][]byte, bridge []byte) (*Credentials, error) {
	return New(c.key, c.certificate.Raw, roots, bridge)
}

// Trusts tells whether the credentials trust these CAs, in DER and in this order, and show that bridge.
func (c *Credentials) Trusts(roots [][]byte, bridge []byte) bool {
	return bytes.Equal(c.bridge, bridge) &&
		slices.EqualFunc(c.roots, roots, func(mine *x509.Certificate, der []byte) bool { return bytes.Equal(mine.Raw, der) })
}

// Ahead tells whether the credentials know of a later state of the cluster's CAs than roots, which then
// come from a manager that has not caught up: whoever went back to an old CA would be cut off by the rest.
// Each CA begins later than the one it replaces (CA.Successor), and a replacement ends with fewer CAs.
func (c *Credentials) Ahead(roots [][]byte) bool {
	if len(roots) == 0 {
		return true
	}
	if bytes.Equal(c.roots[0].Raw, roots[0]) {
		return len(c.roots) < len(roots)
	}
	issuing, err := x509.ParseCertificate(roots[0])
	return err == nil && c.roots[0].NotBefore.After(issuing.NotBefore)
}

// Key is the private key, by which the holder asks for a new certificate of the same name.
func (c *Credentials) Key() *ecdsa.PrivateKey { return c.key }

// Issuer returns the Digest of the CA that has issued a certificate of the cluster, empty where it is not
// known. Along may come what was shown with the certificate: who trusts an old CA alone learns by it of
// which new one a certificate is. That a CA has signed itself proves that it is one and no copy.
func (c *Credentials) Issuer(cert *x509.Certificate, along ...*x509.Certificate) string {
	for _, root := range c.roots {
		if cert.CheckSignatureFrom(root) == nil {
			return Digest(root)
		}
	}
	for _, ca := range along[:min(len(along), maxBetween)] {
		if ca.IsCA && ca.CheckSignatureFrom(ca) == nil && cert.CheckSignatureFrom(ca) == nil {
			return Digest(ca)
		}
	}
	return ""
}

// Current tells whether the certificate was issued by the CA that issues now, the first of the trusted.
func (c *Credentials) Current() bool { return c.IssuedBy(c.roots[0].Raw) }

// IssuedBy tells whether the certificate was issued by a CA, whose certificate is given in DER.
func (c *Credentials) IssuedBy(ca []byte) bool {
	parsed, err := x509.ParseCertificate(ca)
	return err == nil && c.certificate.CheckSignatureFrom(parsed) == nil
}

// Certificate is the holder's certificate.
func (c *Credentials) Certificate() *x509.Certificate { return c.certificate }

// Identity is who the certificate is for.
func (c *Credentials) Identity() Identity { return c.identity }

// Roots are the trusted CA certificates.
func (c *Credentials) Roots() []*x509.Certificate { return c.roots }

// NotAfter is when the certificate expires.
func (c *Credentials) NotAfter() time.Time { return c.certificate.NotAfter }

// IssuedAt is when the certificate was issued. It is good from a little earlier on.
func (c *Credentials) IssuedAt() time.Time { return IssuedAt(c.certificate) }

// RenewAt picks a time to renew the certificate: a random one between half and four fifths of its life,
// so that members that joined together do not renew together, and a failure leaves time. Ask once: every
// answer is another one.
func (c *Credentials) RenewAt() time.Time {
	issued := IssuedAt(c.certificate)
	life := c.certificate.NotAfter.Sub(issued)
	if life < time.Second {
		return issued // no life is left to choose from
	}
	return issued.Add(life/2 + rand.N(life*3/10))
}

// The kinds of PEM blocks in a file of credentials.
const (
	pemKey         = "PRIVATE KEY"
	pemCertificate = "CERTIFICATE"
	pemBridge      = "WARREN BRIDGE CERTIFICATE"
)

// maxFileBytes bounds a file of credentials: a key, a certificate, and a CA or two while one is replaced.
const maxFileBytes = 64 << 10

// Encode returns the credentials in PEM: the key, the certificate, the CAs, the bridge.
func (c *Credentials) Encode() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		return nil, fmt.Errorf("encode the private key: %w", err)
	}
	var b bytes.Buffer
	blocks := []*pem.Block{{Type: pemKey, Bytes: key}, {Type: pemCertificate, Bytes: c.certificate.Raw}}
	for _, root := range c.roots {
		blocks = append(blocks, &pem.Block{Type: pemCertificate, Bytes: root.Raw})
	}
	if len(c.bridge) > 0 {
		blocks = append(blocks, &pem.Block{Type: pemBridge, Bytes: c.bridge})
	}
	for _, block := range blocks {
		if err := pem.Encode(&b, block); err != nil {
			return nil, fmt.Errorf("encode credentials: %w", err)
		}
	}
	return b.Bytes(), nil
}

// Decode reads what Encode wrote.
func Decode(text []byte) (*Credentials, error) {
	if len(text) > maxFileBytes {
		return nil, fmt.Errorf("it has %d bytes, which no file of credentials has", len(text))
	}
	var key *ecdsa.PrivateKey
	var certificates [][]byte
	var bridge []byte
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case pemKey:
			if key != nil {
				return nil, errors.New("it holds two private keys")
			}
			var err error
			if key, err = ParseKey(block.Bytes); err != nil {
				return nil, err
			}
		case pemCertificate:
			certificates = append(certificates, block.Bytes)
		case pemBridge:
			bridge = block.Bytes
		}
	}
	if key == nil || len(certificates) < 2 {
		return nil, errors.New("it must hold a private key, a certificate and a CA certificate in PEM")
	}
	return New(key, certificates[0], certificates[1:], bridge)
}

// Save writes the credentials to a file that its owner alone may read (WriteSecret).
func (c *Credentials) Save(path string) error {
	text, err := c.Encode()
	if err == nil {
		err = WriteSecret(path, text)
	}
	if err != nil {
		return fmt.Errorf("save credentials: %w", err)
	}
	return nil
}

// LoadFile reads credentials that Save wrote. It fails with fs.ErrNotExist where there are none.
func LoadFile(path string) (*Credentials, error) {
	text, err := ReadSecret(path, maxFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var c *Credentials
	if err == nil {
		c, err = Decode(text)
	}
	if err != nil {
		return nil, fmt.Errorf("read credentials %s: %w", path, err)
	}
	return c, nil
}

package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// MaxSkew is how far apart the clocks of a machine and a manager may be, and how long a request for a
// certificate is good.
const MaxSkew = 5 * time.Minute

var (
	// ErrRequest says that a request for a certificate is not in order.
	ErrRequest = errors.New("the certificate request is not in order")
	// ErrClock says that two clocks are further apart than MaxSkew.
	ErrClock = errors.New("the clocks are too far apart")
)

// NewKey draws a private key: ECDSA on P-256, which everything that speaks TLS 1.3 knows.
func NewKey() (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("draw a private key: %w", err)
	}
	return key, nil
}

// NewRequest asks for a certificate for a key, as of now.
func NewRequest(key *ecdsa.PrivateKey, now time.Time) (*warrenv1.CertificateRequest, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate request: %w", err)
	}
	made := timestamppb.New(now)
	proof, err := ecdsa.SignASN1(rand.Reader, key, proven(csr, made))
	if err != nil {
		return nil, fmt.Errorf("sign a certificate request: %w", err)
	}
	return &warrenv1.CertificateRequest{Csr: csr, MadeAt: made, Proof: proof}, nil
}

// proven is the digest that a request's proof signs.
func proven(csr []byte, made *timestamppb.Timestamp) []byte {
	h := sha256.New()
	h.Write([]byte("warren certificate request 1\x00"))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(made.AsTime().UnixNano())))
	h.Write(csr)
	return h.Sum(nil)
}

// The most a request's parts may measure; the API's rules for them say the same.
const (
	maxRequestBytes = 4096
	maxProofBytes   = 256
)

// Check returns the key that a request is for, once it is sure that whoever made it holds the key, and
// made it within MaxSkew of now. It fails with ErrRequest or ErrClock.
func Check(r *warrenv1.CertificateRequest, now time.Time) (*ecdsa.PublicKey, error) {
	if len(r.GetCsr()) > maxRequestBytes || len(r.GetProof()) > maxProofBytes || r.GetMadeAt().CheckValid() != nil {
		return nil, fmt.Errorf("%w: it is too large, or does not say when it was made", ErrRequest)
	}
	made := r.GetMadeAt().AsTime()
	// First, as it costs nothing: what comes next is arithmetic on numbers that a stranger has chosen.
	if skew := made.Sub(now); skew > MaxSkew || skew < -MaxSkew {
		return nil, fmt.Errorf("%w: the machine that asks has %s, the manager has %s: set the clocks (NTP) and try again",
			ErrClock, made.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	csr, err := x509.ParseCertificateRequest(r.GetCsr())
	if err != nil {
		return nil, fmt.Errorf("%w: it cannot be read: %w", ErrRequest, err)
	}
	key, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: its key must be ECDSA on P-256", ErrRequest)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("%w: it is not signed with its own key: %w", ErrRequest, err)
	}
	if !ecdsa.VerifyASN1(key, proven(r.GetCsr(), r.GetMadeAt()), r.GetProof()) {
		return nil, fmt.Errorf("%w: its proof was not made with its key for this request", ErrRequest)
	}
	return key, nil
}

package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

func newTestRequest(t testing.TB, key *ecdsa.PrivateKey, now time.Time) *warrenv1.CertificateRequest {
	t.Helper()
	r, err := NewRequest(key, now)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestARequestIsGoodForItsKey(t *testing.T) {
	key, now := newTestKey(t), time.Now()
	got, err := Check(newTestRequest(t, key, now), now)
	if err != nil || !got.Equal(&key.PublicKey) {
		t.Error(got, err)
	}
}

func TestARequestIsGoodForFiveMinutes(t *testing.T) {
	key, now := newTestKey(t), time.Now()
	r := newTestRequest(t, key, now)
	for _, off := range []time.Duration{0, MaxSkew, -MaxSkew} {
		if _, err := Check(r, now.Add(off)); err != nil {
			t.Errorf("%v later: %v", off, err)
		}
	}
	for _, off := range []time.Duration{MaxSkew + time.Second, -MaxSkew - time.Second, time.Hour, -time.Hour, 290 * 365 * 24 * time.Hour} {
		_, err := Check(r, now.Add(off))
		says(t, err, ErrClock, "set the clocks (NTP)", "the manager has")
	}
}

func TestARequestThatWasAlteredIsRefused(t *testing.T) {
	key, other, now := newTestKey(t), newTestKey(t), time.Now()
	good, foreign := newTestRequest(t, key, now), newTestRequest(t, other, now)
	for name, edit := range map[string]func(*warrenv1.CertificateRequest){
		"made later, to be used again":  func(r *warrenv1.CertificateRequest) { r.MadeAt = timestamppb.New(now.Add(time.Second)) },
		"made at no time":               func(r *warrenv1.CertificateRequest) { r.MadeAt = nil },
		"made at a time that is none":   func(r *warrenv1.CertificateRequest) { r.MadeAt.Nanos = -1 },
		"made past the end of time":     func(r *warrenv1.CertificateRequest) { r.MadeAt.Seconds = 1 << 60 },
		"with somebody else's key":      func(r *warrenv1.CertificateRequest) { r.Csr = foreign.GetCsr() },
		"with somebody else's proof":    func(r *warrenv1.CertificateRequest) { r.Proof = foreign.GetProof() },
		"without a proof":               func(r *warrenv1.CertificateRequest) { r.Proof = nil },
		"without a request":             func(r *warrenv1.CertificateRequest) { r.Csr = nil },
		"with more than a request has":  func(r *warrenv1.CertificateRequest) { r.Csr = append(r.Csr, 0) },
		"larger than any is":            func(r *warrenv1.CertificateRequest) { r.Csr = make([]byte, 1<<20) },
		"with a proof larger than any":  func(r *warrenv1.CertificateRequest) { r.Proof = make([]byte, 1<<20) },
		"with a signature that is none": func(r *warrenv1.CertificateRequest) { r.Csr[len(r.Csr)-1] ^= 1 },
	} {
		r := proto.CloneOf(good)
		edit(r)
		if _, err := Check(r, now); err == nil {
			t.Errorf("%s: it is taken", name)
		} else {
			says(t, err, ErrRequest)
		}
	}
}

func TestAnyBitOfARequestCounts(t *testing.T) {
	key, now := newTestKey(t), time.Now()
	good := newTestRequest(t, key, now)
	rapid.Check(t, func(rt *rapid.T) {
		r := proto.CloneOf(good)
		in := rapid.SampledFrom([]*[]byte{&r.Csr, &r.Proof}).Draw(rt, "part")
		(*in)[rapid.IntRange(0, len(*in)-1).Draw(rt, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		got, err := Check(r, now)
		if err == nil {
			rt.Fatalf("taken for %v", got)
		}
	})
}

func TestOtherKeysThanP256AreRefused(t *testing.T) {
	now := time.Now()
	big, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Check(newTestRequest(t, big, now), now)
	says(t, err, ErrRequest, "ECDSA on P-256")
	old, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, old)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Check(&warrenv1.CertificateRequest{Csr: csr, MadeAt: timestamppb.New(now), Proof: []byte{1}}, now)
	says(t, err, ErrRequest, "ECDSA on P-256")
}

func FuzzCheck(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	key := newTestKey(f)
	good := newTestRequest(f, key, now)
	f.Add(good.GetCsr(), good.GetMadeAt().GetSeconds(), good.GetMadeAt().GetNanos(), good.GetProof())
	f.Add([]byte("x"), int64(0), int32(-1), []byte{})
	f.Fuzz(func(t *testing.T, csr []byte, seconds int64, nanos int32, proof []byte) {
		got, err := Check(&warrenv1.CertificateRequest{Csr: csr, MadeAt: &timestamppb.Timestamp{Seconds: seconds, Nanos: nanos}, Proof: proof}, now)
		if err != nil {
			if !errors.Is(err, ErrRequest) && !errors.Is(err, ErrClock) {
				t.Errorf("refused as %v", err)
			}
			return
		}
		parsed, err := x509.ParseCertificateRequest(csr)
		if err != nil || !got.Equal(parsed.PublicKey) || time.Unix(seconds, int64(nanos)).Sub(now).Abs() > MaxSkew {
			t.Errorf("taken: %x %d.%d %x", csr, seconds, nanos, proof)
		}
	})
}

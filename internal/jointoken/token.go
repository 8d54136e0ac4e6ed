// Package jointoken reads and writes join tokens, WRNTKN-1-DIGEST-SECRET: the digest pins the cluster's CA,
// so that the first contact is already with the right cluster, and the secret shows that the holder was
// let in by an administrator. The secret's first letter says what as, w for a worker and m for a manager,
// so that a command line knows which daemon of its machine is meant.
//
// Start with Parse.
package jointoken

import (
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"log/slog"
	"strings"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// SecretBytes is the length of a token's secret, 160 random bits: too many to guess, so that a plain
// digest of it may be kept.
const SecretBytes = 20

const prefix = "WRNTKN-1-"

var encoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Token is a join token taken apart.
type Token struct {
	// Digest is the CA's, as pki.Digest writes it.
	Digest string
	// Role is what the token says it is for, ROLE_AGENT or ROLE_MANAGER. It is the secret that counts.
	Role   warrenv1.Role
	Secret []byte
}

var (
	letters = map[warrenv1.Role]string{warrenv1.Role_ROLE_AGENT: "w", warrenv1.Role_ROLE_MANAGER: "m"}
	roles   = map[string]warrenv1.Role{"w": warrenv1.Role_ROLE_AGENT, "m": warrenv1.Role_ROLE_MANAGER}
)

// String writes the token as users pass it on.
func (t Token) String() string {
	return prefix + t.Digest + "-" + letters[t.Role] + encoding.EncodeToString(t.Secret)
}

// Hash is what is kept of a secret.
func (t Token) Hash() []byte {
	sum := sha256.Sum256(t.Secret)
	return sum[:]
}

// LogValue keeps the secret out of logs: of a token they get the CA's digest alone.
func (t Token) LogValue() slog.Value { return slog.StringValue(prefix + t.Digest + "-…") }

// maxLength is more than any token has.
const maxLength = 256

// Parse reads a token. Its errors never repeat what they were given.
func Parse(s string) (Token, error) {
	if len(s) > maxLength {
		return Token{}, errors.New("it is too long to be a join token: give what `warrenctl cluster join-token worker` prints and nothing else")
	}
	s = strings.TrimSpace(s)
	rest, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return Token{}, errors.New("it is not a join token: one begins with " + prefix + ", and `warrenctl cluster join-token worker` prints it")
	}
	digest, secret, _ := strings.Cut(rest, "-")
	letter, secret := secret[:min(1, len(secret))], secret[min(1, len(secret)):]
	decoded, err := encoding.DecodeString(secret)
	token := Token{Digest: digest, Role: roles[letter], Secret: decoded}
	// The decoder skips line breaks; a token has one spelling.
	if err != nil || !pki.IsDigest(digest) || token.Role == 0 || len(decoded) != SecretBytes || token.String() != s {
		return Token{}, errors.New("the join token is damaged or cut off: copy all of what `warrenctl cluster join-token worker` prints")
	}
	return token, nil
}

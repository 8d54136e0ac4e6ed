package caller

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/cuemby/warren/internal/pki"
	warrenv1 "github.com/cuemby/warren/proto/warren/v1"
)

// header tells a manager for whom another one makes a call. From anybody but a manager it means nothing.
const header = "Warren-Caller"

// maxHeader bounds the header, maxReason what of a refusal it tells.
const (
	maxHeader = 8 << 10
	maxReason = 1 << 10
)

// passed is a caller as a header holds it.
type passed struct {
	Role    string
	Name    string    `json:",omitempty"`
	Local   bool      `json:",omitempty"`
	Addr    string    `json:",omitempty"`
	Key     []byte    `json:",omitempty"`
	Issuer  string    `json:",omitempty"`
	Expires time.Time `json:",omitzero"`
	Refused string    `json:",omitempty"` // in kinds
	Why     string    `json:",omitempty"` // Refused in words
}

// kinds are the refusals that those who say what to do tell apart, by the names they travel under.
var kinds = map[string]error{
	"expired": pki.ErrExpired, "early": pki.ErrNotYetValid, "foreign": pki.ErrForeign, "none": pki.ErrNone,
}

// refusal is a refusal that another manager has told of.
type refusal struct {
	kind error // nil where it is none of kinds
	why  string
}

// Error implements error.
func (r refusal) Error() string { return r.why }

// Unwrap has errors.Is see the kind.
func (r refusal) Unwrap() error { return r.kind }

// PassOn writes into a call's header for whom it is made, in place of what stood there.
func PassOn(h http.Header, c Caller) {
	p := passed{Role: pki.RoleName(c.Role), Name: c.Name, Local: c.Local, Addr: c.Addr, Key: c.Key, Issuer: c.Issuer, Expires: c.Expires}
	if c.Refused != nil {
		p.Why = c.Refused.Error()
		p.Why = p.Why[:min(len(p.Why), maxReason)]
		for name, kind := range kinds {
			if errors.Is(c.Refused, kind) {
				p.Refused = name
			}
		}
	}
	text, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings, bytes and times can be written
	}
	h.Set(header, base64.StdEncoding.EncodeToString(text))
}

// passedOn reads whom a manager of that name makes a call for. A caller that is not understood is nobody.
func passedOn(h http.Header, via string) (Caller, bool) {
	value := h.Get(header)
	if value == "" {
		return Caller{}, false
	}
	nobody := Caller{Role: warrenv1.Role_ROLE_ANONYMOUS, Via: via}
	if len(value) > maxHeader {
		return nobody, true
	}
	text, err := base64.StdEncoding.DecodeString(value)
	if err != nil {
		return nobody, true
	}
	var p passed
	if err := json.Unmarshal(text, &p); err != nil {
		return nobody, true
	}
	nobody.Addr = p.Addr
	if p.Why != "" {
		nobody.Refused = refusal{kinds[p.Refused], p.Why}
	}
	role, err := pki.ParseRole(p.Role)
	if err != nil || p.Name == "" {
		return nobody, true
	}
	return Caller{
		Role: role, Name: p.Name, Local: p.Local, Addr: p.Addr,
		Key: p.Key, Issuer: p.Issuer, Expires: p.Expires, Via: via,
	}, true
}

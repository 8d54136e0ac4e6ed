// Package id makes and recognises the identifiers of Warren's objects: 16 characters of lower-case
// base32, 80 random bits. A million objects collide with a chance of one in two trillion, and a
// collision is refused when it is stored, not overwritten.
package id

import (
	"crypto/rand"
	"encoding/base32"
	"strings"
)

// Length is the number of characters of an identifier.
const Length = 16

const alphabet = "abcdefghijklmnopqrstuvwxyz234567"

var encoding = base32.NewEncoding(alphabet).WithPadding(base32.NoPadding)

// New draws an identifier.
func New() string {
	var bits [10]byte
	rand.Read(bits[:]) // never fails: crypto/rand ends the program instead
	return encoding.EncodeToString(bits[:])
}

// IsPrefix tells whether s can be the beginning of an identifier.
func IsPrefix(s string) bool {
	return s != "" && len(s) <= Length && strings.Trim(s, alphabet) == ""
}

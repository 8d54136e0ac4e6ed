package api

import (
	"encoding/base64"
	"strings"
)

// maxPage is how many objects a page has at the most, and where the request does not say.
const maxPage = 1000

func pageSize(asked uint32) int {
	if asked == 0 {
		return maxPage
	}
	return int(asked)
}

// cursor is a place in a list: the sort key of the last object given. It stays good when objects come
// and go.
type cursor []string

// token makes a cursor into a page token.
func (c cursor) token() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strings.Join(c, "\x00")))
}

// parseToken reads a page token of that many parts; nil of an empty one.
func parseToken(token string, parts int) (cursor, error) {
	if token == "" {
		return nil, nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	if c := cursor(strings.Split(string(raw), "\x00")); err == nil && len(c) == parts {
		return c, nil
	}
	return nil, invalid(violation("page_token", "this is no page token of this list: leave it empty for the first page", field("page_token")))
}

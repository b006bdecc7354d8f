package netlify

import (
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/pkg/kv"
)

// access decides who may call. The zero value allows everybody.
type access struct {
	restricted bool
	all        [][sha256.Size]byte // digests of tokens: equal lengths compare in equal time
	reads      [][sha256.Size]byte
}

// accessFrom returns the access that the tokens grant. A read token alone protects reads and closes writes.
func accessFrom(tokens config.Access) access {
	all, reads := digests(tokens.API), digests(tokens.Read)
	return access{restricted: tokens.API != nil || tokens.Read != nil, all: all, reads: append(reads, all...)}
}

func digests(tokens config.Tokens) (sums [][sha256.Size]byte) {
	for _, token := range tokens {
		sums = append(sums, sha256.Sum256([]byte(token)))
	}
	return sums
}

// check compares the token of an Authorization header with every valid one, without stopping early.
func (a access) check(authorization string, reading bool) error {
	if !a.restricted {
		return nil
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return &kv.Error{Code: kv.CodeUnauthorized, Message: "missing token: send Authorization: Bearer <token>"}
	}
	good := a.all
	if reading {
		good = a.reads
	}
	given, match := sha256.Sum256([]byte(strings.TrimSpace(token))), 0
	for _, sum := range good {
		match |= subtle.ConstantTimeCompare(given[:], sum[:])
	}
	if match == 0 {
		return &kv.Error{Code: kv.CodeUnauthorized, Message: "wrong token"}
	}
	return nil
}

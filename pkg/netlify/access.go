package netlify

import (
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"netlify-supabase-kv/pkg/env"
	"netlify-supabase-kv/pkg/kv"
)

// access decides who may call. The zero value lets everybody.
type access struct {
	restricted bool
	all        [][sha256.Size]byte // digests of tokens, which have one length and so one time to compare
	reads      [][sha256.Size]byte
}

// accessFrom takes KV_API_TOKEN and KV_READ_TOKEN: each "" or several tokens with commas between them, for rotation. A
// read token alone protects the reads and leaves the writes closed. A variable that is set and holds no token, as ","
// or a space does, closes what it protects: both are taken as they are set.
func accessFrom(apiTokens, readTokens string) access {
	all, reads := digests(apiTokens), digests(readTokens)
	return access{restricted: apiTokens+readTokens != "", all: all, reads: append(reads, all...)}
}

func digests(tokens string) (sums [][sha256.Size]byte) {
	for _, token := range strings.Split(env.Clean(tokens), ",") {
		if token = env.Clean(token); token != "" {
			sums = append(sums, sha256.Sum256([]byte(token)))
		}
	}
	return sums
}

// check compares the token of an Authorization header with all that are good for the purpose, without stopping early.
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

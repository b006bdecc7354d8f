package supervisor

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io/fs"
	"time"

	"netlify-supabase-kv/scripts/platform/internal/layout"
	"netlify-supabase-kv/scripts/platform/internal/postgres"
	"netlify-supabase-kv/scripts/platform/internal/postgrest"
)

// secrets are created when a platform is first started.
type secrets struct {
	Passwords postgres.Passwords `json:"passwords"`
	Keys      postgrest.Keys     `json:"keys"`
}

func loadSecrets(home layout.Home) (secrets, error) {
	var s secrets
	err := readJSON(home.Secrets(), &s)
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	s.Passwords = postgres.Passwords{Superuser: random(), Owner: random(), Authenticator: random()}
	if s.Keys, err = postgrest.NewKeys(random()+random(), random(), time.Now()); err != nil {
		return s, err
	}
	return s, writeJSON(home.Secrets(), s)
}

// random returns 32 hexadecimal digits, which are safe in addresses, files and SQL.
func random() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

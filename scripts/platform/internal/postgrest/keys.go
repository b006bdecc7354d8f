// Package postgrest is Supabase's REST address, <SUPABASE_URL>/rest/v1: PostgREST behind a gateway that asks for an
// API key as the hosted one does.
package postgrest

import (
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Keys are what a client of a Supabase project is given.
type Keys struct {
	JWTSecret   string `json:"jwt_secret"`
	Anon        string `json:"anon"`         // a JWT for the role anon
	ServiceRole string `json:"service_role"` // a JWT for the role service_role
	Secret      string `json:"secret"`       // sb_secret_…, which the gateway turns into ServiceRole
}

// keyLife is how long the keys hold; Supabase's hold as long.
const keyLife = 10 * 365 * 24 * time.Hour

// NewKeys signs keys with a secret of at least 32 characters, which PostgREST demands.
func NewKeys(jwtSecret, random string, now time.Time) (Keys, error) {
	k := Keys{JWTSecret: jwtSecret, Secret: "sb_secret_" + random}
	var err error
	if k.Anon, err = sign(jwtSecret, "anon", now); err != nil {
		return Keys{}, err
	}
	k.ServiceRole, err = sign(jwtSecret, "service_role", now)
	return k, err
}

func sign(secret, role string, now time.Time) (string, error) {
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": "supabase-local", "role": role, "iat": now.Unix(), "exp": now.Add(keyLife).Unix(),
	})
	signed, err := token.SignedString([]byte(secret))
	if err != nil {
		return "", fmt.Errorf("sign the %s key: %w", role, err)
	}
	return signed, nil
}

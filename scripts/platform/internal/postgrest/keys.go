// Package postgrest serves Supabase's REST address, <SUPABASE_URL>/rest/v1: PostgREST behind a gateway that checks API
// keys as the hosted one does.
package postgrest

import (
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// Keys are the keys of a Supabase project.
type Keys struct {
	JWTSecret   string `json:"jwt_secret"`
	Anon        string `json:"anon"`         // a JWT for the role anon
	ServiceRole string `json:"service_role"` // a JWT for the role service_role
	Secret      string `json:"secret"`       // sb_secret_…, which the gateway turns into ServiceRole
}

// keyLife is how long the keys are valid, as long as Supabase's.
const keyLife = 10 * 365 * 24 * time.Hour

// NewKeys signs keys with a secret, which PostgREST requires to have at least 32 characters.
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

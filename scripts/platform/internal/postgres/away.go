package postgres

import (
	"crypto/sha256"
	"encoding/hex"
	"path/filepath"
)

// awayPrefix begins the name of every folder outside the checkout, so that [Remove] removes no other.
const awayPrefix = "netlify-supabase-kv-"

// away names the folder outside the checkout for one platform: by its path, so that two checkouts have two.
func away(home string) string {
	sum := sha256.Sum256([]byte(home))
	return filepath.Join("/var/tmp", awayPrefix+hex.EncodeToString(sum[:6]))
}

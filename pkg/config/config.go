// Package config reads the environment's variables. This file is the only list of them: the tables in the
// documentation and .env.example are made of it (make generate), each field's comment being what they say of the
// variable.
//
// A tag says more: default, in the variable's own words, or shown where it depends; min and max, and must, which the
// error says; alias, another name that counts where this one is not set; secret, what no log and no report may show.
package config

import "time"

// Functions are the variables of the functions.
type Functions struct {
	Stores
	Supabase
	Access
	Cache
	Query
	Blobs
}

// Stores say which store answers, and what the other one is for.
type Stores struct {
	// `true`: Supabase answers. `false`: Netlify Blobs answers.
	UseSupabase bool `env:"USE_SUPABASE_KV" default:"false"`
	// Keeps all entries of a deploy apart from those of others, as in `preview`: 1 to 64 bytes without `/`. Needs
	// `USE_SUPABASE_KV=true`, without mirrored writes and compared reads: docs/PREVIEW.md.
	Namespace string `env:"KV_NAMESPACE"`
	// `true`: every write is copied to the other store: docs/ROLLBACK.md.
	MirrorWrites bool `env:"KV_MIRROR_WRITES" default:"false"`
	// Share of the reads, from 0 to 1, for which the other store is asked too and the answers are compared.
	CompareReads float64 `env:"KV_COMPARE_READS" default:"0" min:"0" max:"1" must:"a share from 0 to 1, as in 0.1"`
	// How much longer a compared read may take.
	CompareTimeout time.Duration `env:"KV_COMPARE_TIMEOUT" default:"300ms" min:"1ns" must:"a time above 0, as in 300ms"`
}

// Supabase is the way to the project.
type Supabase struct {
	// The project's address, `https://<project>.supabase.co`, with or without `/rest/v1`.
	URL string `env:"SUPABASE_URL"`
	// The project's service_role or secret key (`sb_secret_…`). For functions only, never for a browser.
	Key string `env:"SUPABASE_SERVICE_ROLE_KEY" secret:"true"`
}

// Access says who may call. Without either variable everybody may.
type Access struct {
	// Requests must carry `Authorization: Bearer <token>`. Several tokens are separated by commas, so that one can be
	// replaced without an outage.
	API Tokens `env:"KV_API_TOKEN" secret:"true"`
	// Tokens that are valid only for the functions that read. Without `KV_API_TOKEN`, writes are closed.
	Read Tokens `env:"KV_READ_TOKEN" secret:"true"`
}

// Cache is the cache of the reading functions.
type Cache struct {
	// `off`: every answer comes from the database: docs/CACHE.md.
	On bool `env:"KV_CACHE" default:"on" must:"on or off"`
	// How old an answer from memory may be, as in `500ms`; `0`: as new as the request. Once it is set, to any time,
	// answers that found nothing are kept as well.
	MaxStale *time.Duration `env:"KV_CACHE_MAX_STALE" min:"0" must:"a time, as in 1s or 500ms, or 0" shown:"1s; kv-list: 0"`
	// How many answers an instance keeps; the least recently used goes first.
	Entries int `env:"KV_CACHE_ENTRIES" default:"1000" min:"1" max:"1000000" must:"a whole number from 1 to 1000000; KV_CACHE=off turns the cache off"`
	// How many bytes of memory the answers may take together; a function has 1,024 MB.
	MaxBytes int64 `env:"KV_CACHE_MAX_BYTES" default:"67108864" min:"1" must:"a number of bytes, as in 67108864; KV_CACHE=off turns the cache off"`
	// How long an answer is kept, even if it stays current.
	TTL time.Duration `env:"KV_CACHE_TTL" default:"5m" min:"1ns" must:"a time above 0, as in 5m or 30s; KV_CACHE=off turns the cache off"`
	// What a new instance loads at once: keys, and prefixes that end in `*`, separated by commas.
	WarmKeys []string `env:"KV_WARM_KEYS"`
}

// Query bounds kv-query.
type Query struct {
	// How long a query may take, as in `2s` or `500ms`, up to 10 s. Then the answer is 504.
	Timeout time.Duration `env:"KV_QUERY_TIMEOUT" default:"10s" min:"1ns" max:"10s" must:"a time of up to 10s, as in 2s or 500ms"`
}

// Blobs is the way to Netlify Blobs where a function's event has none, or is refused.
type Blobs struct {
	// A personal access token: the way to Netlify Blobs where an event has none, or is refused.
	Token PlainText `env:"NETLIFY_BLOBS_TOKEN" secret:"true"`
	// The id of the site that the token is for.
	SiteID PlainText `env:"NETLIFY_SITE_ID" alias:"SITE_ID" shown:"SITE_ID, which Netlify sets"`
	// Where the token is good. For a local server.
	APIURL Address `env:"NETLIFY_BLOBS_API_URL" shown:"https://api.netlify.com"`
	// Requests a minute that one instance makes to Netlify's API, which takes 500 for a token:
	// docs/ROLLBACK.md#what-the-functions-cost-in-requests.
	Rate *int `env:"KV_BLOBS_RATE" min:"1" must:"a whole number of requests a minute, 1 or more, as in 300" shown:"300; unlimited for a local server"`
}

// Platform are the variables of the local platform: make up, make dev, make test.
type Platform struct {
	// First of a block of ports, instead of 54321 (Supabase), 54322 (Postgres), 9999 (functions) and 8888 (`make
	// dev`). `auto` takes any free ones.
	PortBase string `env:"KV_LOCAL_PORT_BASE" alias:"PORT_BASE"`
	// Version of Postgres: `17`, or `15` as in older Supabase projects.
	Postgres string `env:"KV_LOCAL_POSTGRES" default:"17"`
	// Instances of each function.
	Instances int `env:"KV_LOCAL_INSTANCES" alias:"INSTANCES" default:"2" min:"1" must:"a whole number from 1"`
	// How long a function may take. The default is Netlify's.
	Timeout time.Duration `env:"KV_HOST_TIMEOUT" default:"60s" min:"1ns" must:"a time above 0, as in 500ms or 60s"`
}

// Programs are the variables of the programs that call the functions or read a database.
type Programs struct {
	// The site that `make e2e` and `make export` call, as in `https://deploy-preview-12--site.netlify.app`.
	BaseURL string `env:"KV_BASE_URL" shown:"what make up started"`
	// The database itself, for `kv doctor` and `migrate-kv-store --from-table` (Supabase: Connect, Session pooler).
	DatabaseURL string `env:"DATABASE_URL" secret:"true"`
}

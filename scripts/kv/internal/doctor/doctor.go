// Package doctor finds problems of a site with the kv functions. Before a deploy it checks the site's files, variables
// and database; after a deploy it also checks the site at its address.
//
// A check is a row of [Checks]. To add one, add a row, and to the tests a fault that it finds.
package doctor

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Level is how much a finding matters.
type Level string

// The levels. A check has the level of its most severe finding: Fail, then Warn, then Skip.
const (
	OK   Level = "ok"
	Skip Level = "skip" // not checked; the text says why
	Warn Level = "warn" // works, but may not be intended
	Fail Level = "fail"
)

// Finding is one result of a check.
type Finding struct {
	Level Level  `json:"level"`
	Text  string `json:"text"`           // what was found
	Mend  string `json:"mend,omitempty"` // what to do; only with Warn and Fail
}

func ok(format string, args ...any) []Finding {
	return []Finding{{Level: OK, Text: fmt.Sprintf(format, args...)}}
}

func skip(format string, args ...any) []Finding {
	return []Finding{{Level: Skip, Text: fmt.Sprintf(format, args...)}}
}

func fail(text, mend string) []Finding { return []Finding{{Level: Fail, Text: text, Mend: mend}} }

func warn(text, mend string) []Finding { return []Finding{{Level: Warn, Text: text, Mend: mend}} }

// Check looks at one thing.
type Check struct {
	ID    string                                         // stable: never renamed once released
	About string                                         // what is true if the check is OK
	After bool                                           // needs the address of the deployed site
	Run   func(ctx context.Context, in *Input) []Finding // no finding means OK
}

// Checks are all checks, in the order of their results.
var Checks = []Check{
	{"go-version", "Netlify can install the Go version, and that version can read go.mod", false, checkGoVersion},
	{"functions-directory", "Netlify finds the functions, and no JavaScript function has the same name", false, checkFunctionsDirectory},
	{"redirects", "each short address leads to its function, in front of any catch-all", false, checkRedirects},
	{"variables", "the functions can read their variables", false, checkVariables},
	{"variables-size", "the variables fit into the 4 KB that a function may have", false, checkVariablesSize},
	{"tokens", "KV_API_TOKEN and KV_READ_TOKEN hold tokens that cannot be guessed", false, checkTokens},
	{"supabase-url", "SUPABASE_URL is a project's address", false, checkSupabaseURL},
	{"supabase-key", "SUPABASE_SERVICE_ROLE_KEY is a service_role or secret key of that project", false, checkSupabaseKey},
	{"project", "the project answers at that address and accepts the key", false, checkProject},
	{"exposed-schema", "the project's API exposes the schema public", false, checkExposed},
	{"database-url", "DATABASE_URL, where it is set, leads to the same database", false, checkDatabaseURL},
	{"kv-store", "the table kv_store, if there is one, is ours", false, checkTable},
	{"migrations", "every migration is fully applied, and none is of a newer release", false, checkMigrations},
	{"grants", "service_role has the privileges that the functions need, and no other role has any", false, checkGrants},
	{"row-cap", "the API's row limit lets a response through", false, checkRowCap},
	{"publication", "no publication makes deletes fail", false, checkPublications},
	{"clock", "the database's clock is right", false, checkClock},
	{"blobs", "the token and the site for Netlify Blobs are valid, if Blobs is used", false, checkBlobs},
	{"blobs-rate", "enough of the request limit for Netlify Blobs remains", false, checkBlobsRate},
	{"site-functions", "every function answers with JSON at each of its addresses, and is of this release", true, checkSiteFunctions},
	{"site-tokens", "each token allows what it should, and a missing or wrong token allows nothing", true, checkSiteTokens},
	{"site-write", "an entry can be written, read back, listed, found and deleted", true, checkSiteWrite},
	{"site-staleness", "no read is staler than KV_CACHE_MAX_STALE allows", true, checkSiteStaleness},
	{"site-headers", "the response headers arrive", true, checkSiteHeaders},
	{"site-distance", "the database is near the functions", true, checkSiteDistance},
}

// Input is what the checks examine.
type Input struct {
	Dir         string                   // the site's folder
	Site        string                   // the site's address; "" skips the checks of the deployed site
	ReadOnly    bool                     // write nothing to the site
	Getenv      func(name string) string // the functions' variables
	Names       []string                 // all variables of the site if a file gave them; otherwise nil
	Problems    func() []error           // the functions' own errors about the variables
	MaxStale    func() time.Duration     // the allowed staleness of a read
	DatabaseURL string                   // a connection to the database; "" for none
	HTTP        *http.Client
	Now         func() time.Time

	files    func() *siteFiles // each of these three runs once, for the first check that needs it
	database func() *database
	blobs    func() *blobsResult
}

// checkTimeout bounds one check.
const checkTimeout = 30 * time.Second

// Run runs the checks concurrently and passes each result to show in the order of checks, as early as that order
// allows.
func Run(ctx context.Context, in *Input, checks []Check, show func(Check, []Finding)) error {
	in.files = sync.OnceValue(in.readFiles)
	in.database = sync.OnceValue(func() *database { return in.askDatabase(ctx) })
	in.blobs = sync.OnceValue(func() *blobsResult { return in.askBlobs(ctx) })
	results := make([]chan []Finding, len(checks))
	for i, check := range checks {
		results[i] = make(chan []Finding, 1)
		go func() { results[i] <- run(ctx, in, check) }()
	}
	for i, check := range checks {
		findings := <-results[i]
		if ctx.Err() != nil {
			continue // an interrupted check reports only the interruption
		}
		show(check, findings)
	}
	return ctx.Err()
}

func run(ctx context.Context, in *Input, check Check) []Finding {
	if check.After && in.Site == "" {
		return skip("not checked: give the site's address with --site https://…")
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	if findings := check.Run(ctx, in); len(findings) > 0 {
		return findings
	}
	return ok("%s", check.About)
}

// level returns the level of the most severe finding.
func level(findings []Finding) Level {
	for _, level := range []Level{Fail, Warn, Skip} {
		for _, finding := range findings {
			if finding.Level == level {
				return level
			}
		}
	}
	return OK
}

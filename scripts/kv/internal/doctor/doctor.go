// Package doctor looks for what would fail on a site with the kv functions: before it is deployed, in the site's files, variables and
// database; and after, at its address.
//
// A check is a row of [Checks]: add one there, and a fault that it finds to the tests.
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

// The levels. A check has that of its gravest finding, in this order.
const (
	OK   Level = "ok"
	Skip Level = "skip" // not looked at; the text says why
	Warn Level = "warn" // works, and is perhaps not what is wanted
	Fail Level = "fail"
)

// Finding is one thing that a check has to say.
type Finding struct {
	Level Level  `json:"level"`
	Text  string `json:"text"`           // what is so
	Mend  string `json:"mend,omitempty"` // what to do, of Warn and Fail
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
	About string                                         // what is so if all is well
	After bool                                           // it asks the deployed site, and so wants its address
	Run   func(ctx context.Context, in *Input) []Finding // nothing found is OK
}

// Checks are all of them, in the order in which they are told.
var Checks = []Check{
	{"go-version", "Netlify can install the Go that is asked for, and it builds go.mod", false, checkGoVersion},
	{"functions-directory", "the functions are where Netlify looks, and no JavaScript function has the name of one", false, checkFunctionsDirectory},
	{"redirects", "each short address leads to its function, in front of any catch-all", false, checkRedirects},
	{"variables", "the functions understand their variables", false, checkVariables},
	{"variables-size", "the variables fit into the 4 KB that a function may have", false, checkVariablesSize},
	{"tokens", "KV_API_TOKEN and KV_READ_TOKEN are set and hold tokens", false, checkTokens},
	{"supabase-url", "SUPABASE_URL is the address of a project", false, checkSupabaseURL},
	{"supabase-key", "SUPABASE_SERVICE_ROLE_KEY is a service_role or secret key of that project", false, checkSupabaseKey},
	{"project", "the project answers at that address and takes the key", false, checkProject},
	{"exposed-schema", "the project's API exposes the schema public", false, checkExposed},
	{"database-url", "DATABASE_URL, where it is set, leads to the same database", false, checkDatabaseURL},
	{"kv-store", "the table kv_store, where there is one, is ours", false, checkTable},
	{"migrations", "every migration is applied, none half, and none of a newer release", false, checkMigrations},
	{"grants", "service_role may do what the functions do, and nobody else anything", false, checkGrants},
	{"row-cap", "the API's limit of rows lets an answer through", false, checkRowCap},
	{"publication", "no publication makes deletes fail", false, checkPublications},
	{"clock", "the database's clock is right", false, checkClock},
	{"blobs", "the token and the site for Netlify Blobs are good, where Blobs is used", false, checkBlobs},
	{"blobs-rate", "enough is left of the rate at which Blobs may be asked", false, checkBlobsRate},
	{"site-functions", "every function answers JSON, at both of its addresses, and is of this release", true, checkSiteFunctions},
	{"site-tokens", "tokens open what they should, and nothing else does", true, checkSiteTokens},
	{"site-write", "what is written is read back, listed, found and deleted", true, checkSiteWrite},
	{"site-staleness", "no read is older than the functions promise", true, checkSiteStaleness},
	{"site-headers", "the answers' headers arrive", true, checkSiteHeaders},
	{"site-distance", "the database is near the functions", true, checkSiteDistance},
}

// Input is what the checks look at.
type Input struct {
	Dir         string                   // the folder of the site
	Site        string                   // its address, "" if it is not to be asked
	ReadOnly    bool                     // nothing is to be written through the site
	Getenv      func(name string) string // the functions' variables
	Names       []string                 // all variables of the site, where a file gave them; else nil
	Problems    func() []error           // what the functions say of the variables
	MaxStale    func() time.Duration     // how old their answers may be
	DatabaseURL string                   // a connection to the database, "" for none
	HTTP        *http.Client
	Now         func() time.Time

	files    func() *siteFiles // these three are found out once, by whichever check asks first
	database func() *database
	blobs    func() *blobsAnswer
}

// patience is how long one check may take.
const patience = 30 * time.Second

// Run runs the checks side by side and tells each result in the order of [Checks], as soon as it and all before it are there.
func Run(ctx context.Context, in *Input, checks []Check, tell func(Check, []Finding)) error {
	in.files = sync.OnceValue(in.readFiles)
	in.database = sync.OnceValue(func() *database { return in.askDatabase(ctx) })
	in.blobs = sync.OnceValue(func() *blobsAnswer { return in.askBlobs(ctx) })
	results := make([]chan []Finding, len(checks))
	for i, check := range checks {
		results[i] = make(chan []Finding, 1)
		go func() { results[i] <- run(ctx, in, check) }()
	}
	for i, check := range checks {
		findings := <-results[i]
		if ctx.Err() != nil {
			continue // what a check says then is of the interruption
		}
		tell(check, findings)
	}
	return ctx.Err()
}

func run(ctx context.Context, in *Input, check Check) []Finding {
	if check.After && in.Site == "" {
		return skip("the site is asked with --site https://…")
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if findings := check.Run(ctx, in); len(findings) > 0 {
		return findings
	}
	return ok("%s", check.About)
}

// level is that of the gravest finding.
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

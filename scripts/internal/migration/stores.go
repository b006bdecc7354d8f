package migration

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/config"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/entries"
	"netlify-supabase-kv/pkg/migrate/sources"
	"netlify-supabase-kv/scripts/internal/cli"
)

// stores holds the flags for the two stores. No flag has a secret as its default, because help would print it.
type stores struct {
	site, token, apiURL, store string
	supabaseURL, supabaseKey   string
	parallel, rate             int
	fromTable                  string
	decodeKeys                 bool
	output                     cli.Output
}

func (s *stores) flags(f *pflag.FlagSet) {
	f.StringVar(&s.site, "site", "", "id of the Netlify site [NETLIFY_SITE_ID]")
	f.StringVar(&s.token, "token", "", "Netlify personal access token; better set in the environment [NETLIFY_BLOBS_TOKEN]")
	f.StringVar(&s.apiURL, "api-url", "", "the API that accepts the token; for a local Blobs server [NETLIFY_BLOBS_API_URL] (default "+blobs.DefaultAPIURL+")")
	f.StringVar(&s.store, "store", kv.DefaultStore, "the store: its blobs become the entries of the store of the same name")
	f.StringVar(&s.supabaseURL, "supabase-url", "", "address of the Supabase project [SUPABASE_URL]")
	f.StringVar(&s.supabaseKey, "supabase-key", "", "its service_role or secret key; better set in the environment [SUPABASE_SERVICE_ROLE_KEY]")
	f.IntVar(&s.parallel, "parallel", 16, "blobs read at once, 1 to 64")
	f.IntVar(&s.rate, "rate", 0, fmt.Sprintf("requests a minute to Netlify's API, which allows 500 for a token; leave some to the functions (default %d; unlimited for a local server)", blobs.DefaultBackgroundRate))
	f.BoolVar(&s.decodeKeys, "decode-keys", false, "listed keys are percent-encoded, as by the local server of @netlify/blobs")
	s.output.Flags(f)
}

func (s *stores) access() (blobs.Access, error) {
	var c config.Blobs
	err := config.Read(&c, os.Getenv)
	a := blobs.Access{SiteID: cli.Setting(s.site, c.SiteID), APIToken: cli.Setting(s.token, c.Token), APIURL: cli.Setting(s.apiURL, c.APIURL)}
	switch {
	case err != nil:
		return a, err
	case a.SiteID == "":
		return a, errors.New("NETLIFY_SITE_ID is not set: set it, or --site, to the id of the site (Project configuration, General, Project ID)")
	case a.APIToken == "":
		return a, errors.New("NETLIFY_BLOBS_TOKEN is not set: set it to a personal access token (User settings, Applications, Personal access tokens)")
	case s.parallel < 1 || s.parallel > 64:
		return a, fmt.Errorf("--parallel must be 1 to 64, got %d", s.parallel)
	case s.rate < 0:
		return a, fmt.Errorf("--rate must be a number of requests a minute above 0, got %d", s.rate)
	}
	return a, nil
}

// perMinute returns the limit of requests to Netlify's API in a minute; 0 means none.
func (s *stores) perMinute(a blobs.Access) int {
	if s.rate == 0 && a.Limited() {
		return blobs.DefaultBackgroundRate
	}
	return s.rate
}

// sourceFlags adds the flags that name a source other than Blobs.
func (s *stores) sourceFlags(f *pflag.FlagSet) {
	f.StringVar(&s.fromTable, "from-table", "", "migrate from this table of the database at DATABASE_URL instead of from Blobs, as in public.kv_store_old")
}

// checkStore refuses a store that cannot be migrated, and flags that are for the store kv alone. The reports of other
// stores have folders of their own.
func (s *stores) checkStore(c *cobra.Command) error {
	if err := kv.ValidateStore(s.store); err != nil {
		return fmt.Errorf("--store: %w", err)
	}
	if strings.HasPrefix(s.store, "deploy:") {
		return fmt.Errorf("--store %s: the stores of deploys go with their deploys, and are not migrated", s.store)
	}
	if s.store == kv.DefaultStore {
		return nil
	}
	for _, flag := range []string{"index-prefix", "skip-non-json", "rules", "from-table", "repair", "primary", "require", "for"} {
		if c.Flags().Changed(flag) {
			return fmt.Errorf("--%s is for the store kv alone: other stores have no index entries, are not mirrored, and take any bytes", flag)
		}
	}
	if dir := c.Flags().Lookup("dir"); dir != nil && !dir.Changed {
		return dir.Value.Set(defaultDir + "-" + s.store)
	}
	return nil
}

// source returns the source of the entries. close ends its connections.
func (s *stores) source(ctx context.Context) (source sources.Source, close func(), err error) {
	if s.fromTable == "" {
		source, err := s.blobsSource(ctx)
		if err == nil && s.store != kv.DefaultStore {
			source.MostBytes = kv.MaxDataBytes // no function could return more
		}
		return source, func() {}, err
	}
	var c config.Programs
	if err := config.Read(&c, os.Getenv); err != nil {
		return nil, nil, err
	}
	if c.DatabaseURL == "" {
		return nil, nil, errors.New("DATABASE_URL is not set: --from-table reads from it (Supabase: Connect, Session pooler)")
	}
	table, err := sources.NewTable(ctx, c.DatabaseURL, s.fromTable)
	if err != nil {
		return nil, nil, err
	}
	return table, table.Close, nil
}

// blobsSource returns the source in Netlify Blobs once its API answers. Later requests wait while it does not.
func (s *stores) blobsSource(ctx context.Context) (*sources.Blobs, error) {
	access, err := s.access()
	if err != nil {
		return nil, err
	}
	if err := answers(ctx, cmp.Or(access.APIURL, blobs.DefaultAPIURL)); err != nil {
		return nil, cli.Advise(err, "the same command again once that address can be reached; it is that of NETLIFY_BLOBS_API_URL or --api-url, if one is set")
	}
	source := sources.NewBlobs(access, s.store, s.parallel, blobs.NewBackgroundLimiter(s.perMinute(access), time.Minute))
	source.DecodeKeys = s.decodeKeys
	return source, nil
}

// targetIfNamed returns the Supabase project, and nil if none is named.
func (s *stores) targetIfNamed(ctx context.Context) (*entries.Target, error) {
	if url, _ := s.project(); url == "" {
		return nil, nil
	}
	target, err := s.target(ctx)
	if err != nil {
		return nil, err
	}
	return &target, nil
}

// answers makes a request without a token, which counts against none, and takes any response.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodHead, url, http.NoBody)
	if err != nil {
		return err
	}
	response, err := http.DefaultTransport.RoundTrip(request)
	if err != nil {
		return fmt.Errorf("%s does not answer: %w", request.URL.Redacted(), err)
	}
	return response.Body.Close()
}

// project returns the address and the key of the Supabase project.
func (s *stores) project() (url, key string) {
	var c config.Supabase
	_ = config.Read(&c, os.Getenv) // any text is valid
	return cli.Setting(s.supabaseURL, c.URL), cli.Setting(s.supabaseKey, c.Key)
}

// firstRetryTime is how long the first request is retried.
const firstRetryTime = 5 * time.Second

// target returns the Supabase project after a first request. Later requests wait while the project restarts.
func (s *stores) target(ctx context.Context) (entries.Target, error) {
	url, key := s.project()
	switch {
	case url == "":
		return entries.Target{}, errors.New("SUPABASE_URL is not set: set it, or --supabase-url, to the address of the Supabase project")
	case key == "":
		return entries.Target{}, errors.New("SUPABASE_SERVICE_ROLE_KEY is not set: set it to the project's service_role or secret key")
	}
	supabase, err := kv.NewSupabase(url, key)
	if err != nil {
		return entries.Target{}, err
	}
	url = supabase.URL()
	if _, err := supabase.WithBackgroundRetries(firstRetryTime).Migration(ctx); kv.CodeOf(err) == kv.CodeDatabaseUnreachable {
		return entries.Target{}, advise(&unreachableError{url, err})
	} else if err != nil {
		return entries.Target{}, fmt.Errorf("ask %s: %w", url, err)
	}
	return entries.NewTarget(url, supabase.WithStore(s.store)), nil
}

// unreachableError is the error for a project that does not answer the first request, or not as a project does. Its
// address may be wrong.
type unreachableError struct {
	url string
	err error
}

func (e *unreachableError) Error() string {
	return fmt.Sprintf("%s does not answer as a Supabase project: %v", e.url, e.err)
}
func (e *unreachableError) Unwrap() error { return e.err }

// both returns source and target.
func (s *stores) both(ctx context.Context) (source sources.Source, close func(), target entries.Target, err error) {
	if source, close, err = s.source(ctx); err != nil {
		return nil, nil, target, err
	}
	if target, err = s.target(ctx); err != nil {
		close()
	}
	return source, close, target, err
}

// transformFlags adds the flags for how blobs become entries.
func transformFlags(c *cobra.Command, o *entries.Options) {
	f := c.Flags()
	f.StringVar(&o.IndexPrefix, "index-prefix", entries.DefaultIndexPrefix, "the prefix of the keys of index entries")
	f.BoolVar(&o.SkipNonJSON, "skip-non-json", false, "leave out blobs that are not JSON")
}

// defaultDir is where the reports are, without --dir: each store has its own.
const defaultDir = "kv-migration"

func dirFlag(c *cobra.Command, dir *string) {
	c.Flags().StringVar(dir, "dir", defaultDir, "the folder of the reports and of "+entries.RulesFile+"; with --store "+defaultDir+"-<store>")
}

func rulesFlag(c *cobra.Command, file *string) {
	c.Flags().StringVar(file, "rules", "", "file of rules, one a line, for which entry a member of an index names, as in index:sessions=session:{member}")
}

package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"netlify-supabase-kv/pkg/kv"
	supabase "netlify-supabase-kv/supabase"
)

// database is what is known about the database. It is read once through PostgREST with the service key, as the
// functions do, and also over DATABASE_URL if that is set.
type database struct {
	skipped string        // why no request was made to PostgREST; "" if one was
	reached *response     // PostgREST's response to kv_health; nil if there was none
	err     error         // why there was no response
	table   *response     // PostgREST's response about the columns of kv_store, if kv_health is missing
	health  *health       // from PostgREST; nil if it is unknown
	skew    time.Duration // how far the database's clock is ahead of this machine's
	apart   time.Duration // the uncertainty of skew
	date    time.Duration // how far the gateway's clock is ahead; only with reached

	direct    *health // from DATABASE_URL
	directErr error
}

// best returns the health from PostgREST or, failing that, from DATABASE_URL.
func (d *database) best() *health {
	if d.health != nil {
		return d.health
	}
	return d.direct
}

// unknown reports why there is no health.
func (d *database) unknown() []Finding {
	switch {
	case d.skipped != "":
		return skip("not checked: %s", d.skipped)
	case d.lacksHealth():
		return skip("not checked: the database lacks kv_health, which the migrations create; with DATABASE_URL set, this check does not need it")
	}
	return skip("not checked: the project did not answer")
}

func (in *Input) askDatabase(ctx context.Context) *database {
	ctx, cancel := context.WithTimeout(ctx, checkTimeout-time.Second)
	defer cancel()
	d := &database{}
	in.throughPostgREST(ctx, d)
	if in.DatabaseURL != "" {
		d.direct, d.directErr = directly(ctx, in.DatabaseURL)
	}
	return d
}

func (in *Input) throughPostgREST(ctx context.Context, d *database) {
	switch {
	case level(checkSupabaseURL(ctx, in)) != OK:
		d.skipped = "see supabase-url"
		return
	case level(checkSupabaseKey(ctx, in)) != OK:
		d.skipped = "see supabase-key"
		return
	}
	before := in.Now()
	d.reached, d.err = in.postgrest(ctx, http.MethodPost, "rpc/kv_health", "{}")
	if d.err != nil {
		return
	}
	after := in.Now()
	middle := before.Add(after.Sub(before) / 2)
	if date, err := http.ParseTime(d.reached.header.Get("Date")); err == nil {
		d.date = date.Add(500 * time.Millisecond).Sub(middle) // Date is cut to a whole second
	}
	if d.lacksHealth() {
		d.table, _ = in.postgrest(ctx, http.MethodGet, "kv_store?select=key,revision,index_pairs&limit=0", "")
		return
	}
	var h health
	if d.reached.status != http.StatusOK || json.Unmarshal(d.reached.body, &h) != nil || h.Database == "" {
		return
	}
	d.health = &h
	if now, err := time.Parse(time.RFC3339Nano, h.Now); err == nil {
		d.skew, d.apart = now.Sub(middle), after.Sub(before)/2
	}
}

// lacksHealth reports whether PostgREST found no function kv_health.
func (d *database) lacksHealth() bool { return d.reached != nil && d.reached.code() == "PGRST202" }

// response is a server's response.
type response struct {
	status int
	header http.Header
	body   []byte
}

// code returns the SQLSTATE or PGRST… code of a PostgREST error.
func (r *response) code() string {
	var fields struct{ Code string }
	_ = json.Unmarshal(r.body, &fields) // an HTML page has no code
	return fields.Code
}

// isPage reports whether the response is an HTML page.
func (r *response) isPage() bool {
	return strings.Contains(r.header.Get("Content-Type"), "html") || strings.HasPrefix(strings.TrimSpace(string(r.body)), "<")
}

// maxResponseBytes bounds how much of a response is read. No expected response comes near it.
const maxResponseBytes = 8 << 20

func (in *Input) do(r *http.Request) (*response, error) {
	got, err := in.HTTP.Do(r)
	if err != nil {
		return nil, err
	}
	defer got.Body.Close()
	body, err := io.ReadAll(io.LimitReader(got.Body, maxResponseBytes))
	return &response{got.StatusCode, got.Header, body}, err
}

// postgrest sends a request as the functions do. A secret key goes only into apikey: it is not a JWT.
func (in *Input) postgrest(ctx context.Context, method, path, body string) (*response, error) {
	project, ok := kv.ProjectAddress(in.Getenv("SUPABASE_URL"))
	if !ok {
		return nil, errors.New("SUPABASE_URL is not a project's address")
	}
	r, err := http.NewRequestWithContext(ctx, method, project.String()+"/rest/v1/"+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	key := in.text("SUPABASE_SERVICE_ROLE_KEY")
	r.Header.Set("apikey", key)
	if !strings.HasPrefix(key, "sb_") {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	r.Header.Set("Accept", "application/json")
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	return in.do(r)
}

// healthSource finds the text of kv_health in the migrations.
var healthSource = regexp.MustCompile(`(?s)function public\.kv_health\(\).*?as \$\$(.*?)\$\$`)

// directly runs the body of kv_health in a read-only transaction: the function itself may not exist.
func directly(ctx context.Context, address string) (*health, error) {
	var source string
	files, err := fs.Glob(supabase.Migrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	for _, name := range files {
		text, err := fs.ReadFile(supabase.Migrations, name)
		if err != nil {
			return nil, err
		}
		if found := healthSource.FindSubmatch(text); found != nil {
			source = string(found[1])
		}
	}
	config, err := pgx.ParseConfig(address)
	if err != nil {
		return nil, errors.New("it is not the address of a Postgres database") // pgx's own message would quote the address
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // no prepared statements: a pooler may be in between
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return nil, err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, "set local search_path = ''"); err != nil {
		return nil, err
	}
	var text string
	if err := tx.QueryRow(ctx, source).Scan(&text); err != nil {
		return nil, err
	}
	var h health
	return &h, json.Unmarshal([]byte(text), &h)
}

func checkProject(_ context.Context, in *Input) []Finding {
	d := in.database()
	switch {
	case d.skipped != "":
		return skip("not checked: %s", d.skipped)
	case d.err != nil:
		text, mend := connectionFailure(d.err)
		return fail(text, mend)
	case d.health != nil || d.lacksHealth() || d.reached.code() == "PGRST106" || d.reached.code() == "42501":
		return ok("PostgREST answers there")
	case d.reached.status == http.StatusOK && !d.reached.isPage():
		return ok("PostgREST answers there") // checkRowCap reports a missing row
	}
	text, mend := responseFailure(d.reached)
	return fail(text, mend)
}

// connectionFailure describes a request without a response, and what to do.
func connectionFailure(err error) (text, mend string) {
	var name *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &name) && name.IsNotFound:
		return "there is no such host: " + name.Name, "check SUPABASE_URL; a deleted project no longer has an address"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "nothing answered in time", "check whether the project is paused or restarting (Supabase: the project's home page), and whether this network allows outgoing requests"
	case strings.Contains(err.Error(), "certificate"):
		return "the address has no valid certificate", "check SUPABASE_URL, and whether a proxy is in between"
	}
	return "no connection: " + rootCause(err), "check SUPABASE_URL, and whether this network allows outgoing requests"
}

// rootCause returns the text of the innermost error: the outer ones repeat the address.
func rootCause(err error) string {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err.Error()
}

// responseFailure describes a response that a healthy project does not give, and what to do. The statuses from 520 are
// Cloudflare's and Supabase's own ("HTTP status codes" in Supabase's troubleshooting guide).
func responseFailure(r *response) (text, mend string) {
	status := fmt.Sprintf(" (status %d %s)", r.status, r.code())
	switch code := r.code(); {
	case strings.HasPrefix(code, "PGRST30"), r.status == http.StatusUnauthorized:
		return "the project refuses the key" + status, rightKey
	case r.status == http.StatusPaymentRequired:
		return "the project is restricted: its organization is over a quota or has not paid" + status, "see Supabase: Organization, Usage and Billing"
	case r.status == http.StatusForbidden && r.isPage():
		return "the request was blocked before it reached the project" + status, "try another network; if the functions are blocked too, contact Supabase's support"
	case r.status == 540:
		return "the project is paused" + status, "Supabase: the project's home page, Resume project"
	case r.status >= 520 && r.status <= 530, r.status == 544, r.status == http.StatusBadGateway, r.status == http.StatusGatewayTimeout:
		return "the project does not answer its gateway" + status, "see the project's home page and status.supabase.com; the project may be starting, overloaded or paused"
	case strings.HasPrefix(code, "PGRST00"), strings.HasPrefix(code, "08"), r.status == http.StatusServiceUnavailable:
		return "PostgREST cannot reach its database" + status, "see the project's home page: the database may be starting, or have no free connection"
	case code == "53100":
		return "the database's disk is full" + status, "Supabase: Settings, Compute and Disk"
	case code == "57014":
		return "the database took too long to answer" + status, "see its load (Supabase: Reports, Database)"
	case r.status == http.StatusNotFound:
		return "there is no Supabase API at that address" + status, rightURL
	case code == "":
		return "the server at that address is not a Supabase project" + status, rightURL
	}
	return "the database failed to answer" + status, "see its log (Supabase: Logs, Postgres)"
}

func checkExposed(_ context.Context, in *Input) []Finding {
	d := in.database()
	switch {
	case d.reached == nil:
		return d.unknown()
	case d.reached.code() == "PGRST106":
		return fail("the project's API does not expose the schema public", "add public to the exposed schemas (Supabase: Integrations, Data API); if the setting is on the role, run: alter role authenticator reset pgrst.db_schemas")
	case d.health == nil && !d.lacksHealth() && d.reached.code() != "42501":
		return d.unknown()
	}
	return ok("public is exposed")
}

func checkDatabaseURL(_ context.Context, in *Input) []Finding {
	if in.DatabaseURL == "" {
		return skip("DATABASE_URL is not set; the checks of the database use the project's API")
	}
	d := in.database()
	switch {
	case d.directErr != nil:
		return fail("DATABASE_URL leads to no database: "+rootCause(d.directErr), "copy it from Supabase: Connect, Session pooler, and insert the database's password")
	case d.health != nil && d.health.Database != d.direct.Database:
		return fail("DATABASE_URL leads to another database than SUPABASE_URL", "set both to the same project")
	case d.health == nil:
		return ok("the database answers; whether it belongs to the project is unknown")
	}
	return ok("it leads to the project's database")
}

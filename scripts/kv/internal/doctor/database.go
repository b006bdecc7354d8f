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

// database is what is known of the database, asked once: through PostgREST with the service key, as the functions ask, and where that
// cannot say, over DATABASE_URL.
type database struct {
	unasked string        // why PostgREST was not asked, "" if it was
	reached *answer       // what it answered; nil if nothing did
	err     error         // why nothing did
	table   *answer       // what it answers about the columns of kv_store, where kv_health is not there
	health  *health       // nil if it could not be learned
	skew    time.Duration // the database's clock, ahead of this machine's
	apart   time.Duration // how exactly that is known
	date    time.Duration // the gateway's clock, likewise; only with reached

	direct    *health // over DATABASE_URL
	directErr error
}

// best is what was learned, from either side.
func (d *database) best() *health {
	if d.health != nil {
		return d.health
	}
	return d.direct
}

// unknown says why nothing was learned.
func (d *database) unknown() []Finding {
	switch {
	case d.unasked != "":
		return skip("not looked at: %s", d.unasked)
	case d.lacksHealth():
		return skip("not looked at: the database has no kv_health, which the migrations bring; DATABASE_URL would do")
	}
	return skip("not looked at: the project did not answer")
}

func (in *Input) askDatabase(ctx context.Context) *database {
	ctx, cancel := context.WithTimeout(ctx, patience-time.Second)
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
		d.unasked = "see supabase-url"
		return
	case level(checkSupabaseKey(ctx, in)) != OK:
		d.unasked = "see supabase-key"
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
		d.date = date.Add(500 * time.Millisecond).Sub(middle) // a whole second, cut
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

// lacksHealth tells whether PostgREST answered that there is no kv_health.
func (d *database) lacksHealth() bool { return d.reached != nil && d.reached.code() == "PGRST202" }

// answer is one of a server's.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// code is the SQLSTATE or PGRST… of an error of PostgREST.
func (a *answer) code() string {
	var fields struct{ Code string }
	_ = json.Unmarshal(a.body, &fields) // a page has none
	return fields.Code
}

// isPage tells whether it is for people.
func (a *answer) isPage() bool {
	return strings.Contains(a.header.Get("Content-Type"), "html") || strings.HasPrefix(strings.TrimSpace(string(a.body)), "<")
}

// maxAnswerBytes bounds what is read of an answer; none of those asked for is near it.
const maxAnswerBytes = 8 << 20

func (in *Input) do(r *http.Request) (*answer, error) {
	response, err := in.HTTP.Do(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswerBytes))
	return &answer{response.StatusCode, response.Header, body}, err
}

// postgrest asks as the functions do. A secret key goes into apikey alone: it is no JWT.
func (in *Input) postgrest(ctx context.Context, method, path, body string) (*answer, error) {
	project, ok := kv.ProjectAddress(in.Getenv("SUPABASE_URL"))
	if !ok {
		return nil, errors.New("SUPABASE_URL is not the address of a project")
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

// directly runs the text of kv_health, which may not be there as a function, and changes nothing.
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
		return nil, errors.New("it is not the address of a Postgres") // pgx' own message quotes it
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // nothing is prepared: a pooler may be between
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
	case d.unasked != "":
		return skip("not looked at: %s", d.unasked)
	case d.err != nil:
		text, mend := explainSilence(d.err)
		return fail(text, mend)
	case d.health != nil || d.lacksHealth() || d.reached.code() == "PGRST106" || d.reached.code() == "42501":
		return ok("PostgREST answers there")
	case d.reached.status == http.StatusOK && !d.reached.isPage():
		return ok("PostgREST answers there") // what it does not say is the business of checkRowCap
	}
	text, mend := explainAnswer(d.reached)
	return fail(text, mend)
}

// explainSilence says why nothing answered.
func explainSilence(err error) (text, mend string) {
	var name *net.DNSError
	var timeout net.Error
	switch {
	case errors.As(err, &name) && name.IsNotFound:
		return "there is no such host: " + name.Name, "look whether SUPABASE_URL is right; a project that was deleted has no address any more"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "nothing answered in time", "look whether the project is paused or being restarted (Supabase: the project's home page), and whether this network lets requests out"
	case strings.Contains(err.Error(), "certificate"):
		return "the certificate of the address is not good", "look whether SUPABASE_URL is right, and whether a proxy stands between"
	}
	return "no connection: " + lastWord(err), "look whether SUPABASE_URL is right, and whether this network lets requests out"
}

// lastWord is the innermost error: the outer ones repeat the address.
func lastWord(err error) string {
	for inner := errors.Unwrap(err); inner != nil; inner = errors.Unwrap(err) {
		err = inner
	}
	return err.Error()
}

// explainAnswer says what an answer means that is none of a healthy project's. The statuses above 500 are Cloudflare's and Supabase's
// own ("HTTP status codes" in Supabase's troubleshooting guide).
func explainAnswer(a *answer) (text, mend string) {
	said := fmt.Sprintf(" (status %d %s)", a.status, a.code())
	switch code := a.code(); {
	case strings.HasPrefix(code, "PGRST30"), a.status == http.StatusUnauthorized:
		return "the project refuses the key" + said, rightKey
	case a.status == http.StatusPaymentRequired:
		return "the project is restricted: its organisation is over a quota or has not paid" + said, "look at Supabase: Organization, Usage and Billing"
	case a.status == http.StatusForbidden && a.isPage():
		return "the request was blocked before it reached the project" + said, "ask from another network; if the functions are blocked too, write to Supabase's support"
	case a.status == 540:
		return "the project is paused" + said, "Supabase: the project's home page, Resume project"
	case a.status >= 520 && a.status <= 530, a.status == 544, a.status == http.StatusBadGateway, a.status == http.StatusGatewayTimeout:
		return "the project does not answer its gateway" + said, "look at the project's home page and status.supabase.com; it may be starting, overloaded or paused"
	case strings.HasPrefix(code, "PGRST00"), strings.HasPrefix(code, "08"), a.status == http.StatusServiceUnavailable:
		return "PostgREST does not reach its database" + said, "look at the project's home page: the database may be starting, or have no connection free"
	case code == "53100":
		return "the database's disk is full" + said, "Supabase: Settings, Compute and Disk"
	case code == "57014":
		return "the database took too long to answer" + said, "look at its load (Supabase: Reports, Database)"
	case a.status == http.StatusNotFound:
		return "there is no API of Supabase at that address" + said, rightURL
	case code == "":
		return "what answers there is not a Supabase project" + said, rightURL
	}
	return "the database failed to answer" + said, "look at its log (Supabase: Logs, Postgres)"
}

func checkExposed(_ context.Context, in *Input) []Finding {
	d := in.database()
	switch {
	case d.reached == nil:
		return d.unknown()
	case d.reached.code() == "PGRST106":
		return fail("the project's API does not expose the schema public", "add public to the exposed schemas (Supabase: Integrations, Data API), and: alter role authenticator reset pgrst.db_schemas, if it was set there")
	case d.health == nil && !d.lacksHealth() && d.reached.code() != "42501":
		return d.unknown()
	}
	return ok("public is exposed")
}

func checkDatabaseURL(_ context.Context, in *Input) []Finding {
	if in.DatabaseURL == "" {
		return skip("DATABASE_URL is not set; without it, what kv_health tells has to do")
	}
	d := in.database()
	switch {
	case d.directErr != nil:
		return fail("DATABASE_URL leads to no database: "+lastWord(d.directErr), "copy it from Supabase: Connect, Session pooler, with the database's password in it")
	case d.health != nil && d.health.Database != d.direct.Database:
		return fail("DATABASE_URL leads to another database than SUPABASE_URL", "set both to those of one project")
	case d.health == nil:
		return ok("it answers; whether it is the project's cannot be told")
	}
	return ok("it is the project's database")
}

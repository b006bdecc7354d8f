package kv

import (
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"netlify-supabase-kv/pkg/upstream"
)

// codeConnectionLost is the SQLSTATE connection_failure. It replaces the empty code that PostgREST 12 answers with,
// and status 400, when Postgres ends the connection during a statement, as after the crash of another backend.
const codeConnectionLost = "08006"

// failure says what a response means that is not a kv_* function's.
type failure struct {
	codes     string // SQLSTATE or PGRST…, separated by spaces; "*" at the end of one matches any rest
	from, to  int    // HTTP statuses, for responses without a code of Postgres or PostgREST; to: 0 for a single status
	page      bool   // matches only a body that is not JSON, which something in front of the project wrote
	transient bool   // another attempt may succeed
	is        Code
	says      string // the caller's message; "": the response's own, which is written for callers
}

// failures are the responses of PostgREST, Postgres and Supabase's gateway, of which the first match counts. Sources:
// https://docs.postgrest.org/en/v14/references/errors.html,
// https://www.postgresql.org/docs/current/errcodes-appendix.html,
// https://supabase.com/docs/guides/platform/http-status-codes and, for 520 to 530,
// https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/.
var failures = []failure{
	// Raised by a kv_* function, with a message for the caller.
	{codes: "PT400", is: CodeInvalidInput},
	{codes: "PT409", is: CodeConflict},
	{codes: "PT422", is: CodeIdempotencyReused},
	{codes: "PT413", is: CodeTooLarge},
	{codes: "PT415", is: CodeNotJSON},

	// The request: a constraint, text that Postgres's json refuses or cannot nest (54001, 54000), statement_timeout.
	{codes: "23514", is: CodeInvalidInput, says: "the database refused the key or an index as too long"},
	{codes: "22P02 22P05 22003 54001 54000", is: CodeUnstorableValue, says: messageUnstorable},
	{codes: "57014", is: CodeDeadlineExceeded, says: messageDeadline},

	// The schema: no such function, table or media type. Then the key. The gateway makes a token of the key, and
	// PostgREST finds it issued in the future (PGRST303) if clocks differ by a second or two.
	{codes: "PGRST202 PGRST205 PGRST107 42883 42P01", is: CodeNotConfigured, says: messageNoSchema},
	{codes: "PGRST106", is: CodeNotConfigured, says: messageNotExposed},
	{codes: "PGRST125", is: CodeNotConfigured, says: "Supabase knows no such path: SUPABASE_URL must be the project's address alone, https://<project>.supabase.co"},
	{codes: "PGRST303", transient: true, is: CodeNotConfigured, says: "Supabase did not take the token that it made of the key, because of the time in it: an old key may have expired, or clocks of Supabase differ (status.supabase.com)"},
	{codes: "PGRST3* 42501", is: CodeNotConfigured, says: messageRefused},

	// Transient: no connection (PGRST000 to 003, 08), deadlock, serialization failure (which no kv_* function
	// raises), lock not available, out of memory, too many connections, and shutting down, crashed or starting up.
	{codes: "PGRST000 PGRST001 PGRST002 PGRST003 08* 40P01 40001 55P03 53200 53300 57P01 57P02 57P03",
		transient: true, is: CodeDatabaseUnreachable, says: messageUnreachable},

	// The project: somebody has to act.
	{codes: "53100", is: CodeUnavailable, says: "the database's disk is full: enlarge it in Supabase's dashboard (Settings, Compute and Disk), or delete what is not needed there"},
	{codes: "25006", is: CodeUnavailable, says: "the database takes no writes: Supabase makes a project read-only whose disk or quota is nearly full. Enlarge it, or make room (https://supabase.com/docs/guides/platform/database-size)"},
	{from: http.StatusPaymentRequired, is: CodeUnavailable, says: "Supabase has restricted the project, since its organization is over a quota or a bill is overdue: see Usage and Billing in Supabase's dashboard"},
	{from: 540, is: CodeUnavailable, says: "the Supabase project is paused, as free ones are after a week without traffic: restore it in Supabase's dashboard"},
	{from: http.StatusForbidden, page: true, is: CodeUnavailable, says: "the request was blocked before it reached the Supabase project, so the key is not the reason: look at the project's network restrictions, and at status.supabase.com"},

	// The gateway: its own responses. 520 to 530 are Cloudflare's, 544 is its timeout, and a page with 200 is
	// maintenance.
	{from: http.StatusUnauthorized, is: CodeNotConfigured, says: messageRefused},
	{from: http.StatusForbidden, is: CodeNotConfigured, says: messageRefused},
	{from: http.StatusNotAcceptable, is: CodeNotConfigured, says: messageNotExposed},
	{from: http.StatusTooManyRequests, transient: true, is: CodeRateLimited, says: "Supabase limits the rate of requests; try again in a moment"},
	{from: http.StatusBadGateway, to: http.StatusGatewayTimeout, transient: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{from: 520, to: 530, transient: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{from: 544, transient: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{from: 200, to: 299, transient: true, is: CodeDatabaseUnreachable, says: messageMalformed},
	{from: 300, to: 499, is: CodeDatabaseUnreachable, says: messageMalformed},
	{from: 500, to: 599, is: CodeDatabaseUnreachable, says: messageUnreachable},

	{codes: "*", is: CodeDatabaseUnreachable, says: messageFailed},
}

const (
	messageUnstorable = "the database cannot store the value"
	messageNoSchema   = "the database lacks the kv_* functions: apply supabase/migrations, as README.md says"
	messageNotExposed = "Supabase's API does not serve the schema public: add it to the exposed schemas in Supabase's dashboard (Integrations, Data API)"
)

// markTransient marks a failure that another attempt may not meet: one that [failures] says is transient, or one
// without a response, such as a lost connection or a timeout of the attempt. A nil error stays nil.
func markTransient(err error) error {
	var e *postgrestError
	switch {
	case err == nil, errors.As(err, &e) && !e.failure().transient:
		return err
	case e != nil:
		return &upstream.TransientError{Err: err, After: e.RetryAfter}
	}
	return &upstream.TransientError{Err: err}
}

// failure returns the meaning of the response. Codes go before statuses, since PostgREST answers a deadlock and a
// canceled query with status 500.
func (e *postgrestError) failure() failure {
	return failures[slices.IndexFunc(failures, e.matches)] // the last one matches everything
}

func (e *postgrestError) matches(f failure) bool {
	for _, code := range strings.Fields(f.codes) {
		prefix, any := strings.CutSuffix(code, "*")
		if e.Code == code || any && strings.HasPrefix(e.Code, prefix) {
			return true
		}
	}
	return f.from > 0 && !ofPostgres.MatchString(e.Code) && e.Status >= f.from && e.Status <= max(f.from, f.to) && (!f.page || e.Page)
}

// ofPostgres matches the codes of Postgres and PostgREST. Gateways use codes of other forms.
var ofPostgres = regexp.MustCompile(`^([0-9A-Z]{5}|PGRST[0-9A-Z]+)$`)

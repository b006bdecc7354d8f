package kv

import (
	"errors"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"netlify-supabase-kv/pkg/upstream"
)

// codeConnectionLost, connection_failure, stands for the empty code that PostgREST 12 gives, with status 400, where Postgres ended the
// connection in the middle of a statement, as after a crash of another backend: no SQLSTATE came with that.
const codeConnectionLost = "08006"

// failure says what an answer that is none of ours means, and whether asking again may help.
type failure struct {
	code     string // SQLSTATE or PGRST…; with a star at its end, all that begin so
	from, to int    // HTTP statuses, where no code of Postgres or PostgREST came along; to: 0 for one status
	again    bool   // it passes by itself, perhaps within the time of a request
	page     bool   // only where the body is a page: whatever wrote it is in front of the project
	is       Code
	says     string // what a caller is told; empty: the message that came, which is for callers
}

// failures are what PostgREST, Postgres and Supabase's gateway answer with on a bad day. The first that fits holds. Sources:
// https://docs.postgrest.org/en/v14/references/errors.html, https://www.postgresql.org/docs/current/errcodes-appendix.html,
// https://supabase.com/docs/guides/platform/http-status-codes and, for 520 to 530,
// https://developers.cloudflare.com/support/troubleshooting/http-status-codes/cloudflare-5xx-errors/.
var failures = []failure{
	// Raised by a function of ours, in words for the caller.
	{code: "PT400", is: CodeInvalidInput},
	{code: "PT409", is: CodeConditionFailed},
	{code: "PT413", is: CodeTooLarge},

	// What was asked for.
	{code: "23514", is: CodeInvalidInput, says: "the database refused the key or an index as too long"},
	{code: "22P02", is: CodeUnstorableValue, says: messageUnstorable}, // not JSON for Postgres
	{code: "22P05", is: CodeUnstorableValue, says: messageUnstorable},
	{code: "22003", is: CodeUnstorableValue, says: messageUnstorable},
	{code: "54001", is: CodeUnstorableValue, says: messageUnstorable}, // nested too deeply for its stack
	{code: "54000", is: CodeUnstorableValue, says: messageUnstorable},
	{code: "57014", is: CodeDeadlineExceeded, says: messageDeadline}, // statement_timeout

	// The schema and the key.
	{code: "PGRST202", is: CodeNotConfigured, says: messageNoSchema}, // no such function
	{code: "PGRST205", is: CodeNotConfigured, says: messageNoSchema}, // no such table
	{code: "PGRST107", is: CodeNotConfigured, says: messageNoSchema}, // no such media type
	{code: "42883", is: CodeNotConfigured, says: messageNoSchema},
	{code: "42P01", is: CodeNotConfigured, says: messageNoSchema},
	{code: "PGRST106", is: CodeNotConfigured, says: messageNotExposed},
	{code: "PGRST125", is: CodeNotConfigured, says: "Supabase knows no such path: SUPABASE_URL must be the project's address alone, https://<project>.supabase.co"},
	{code: "PGRST301", is: CodeNotConfigured, says: messageRefused}, // a token that cannot be verified
	{code: "PGRST302", is: CodeNotConfigured, says: messageRefused}, // none
	// The gateway makes a token of the key, and PostgREST finds it issued in the future where clocks differ by a second or two.
	{code: "PGRST303", again: true, is: CodeNotConfigured, says: "Supabase did not take the token that it made of the key, because of the time in it: an old key may have expired, or clocks of Supabase differ (status.supabase.com)"},
	{code: "PGRST3*", is: CodeNotConfigured, says: messageRefused},
	{code: "42501", is: CodeNotConfigured, says: messageRefused},

	// What ends by itself: PostgREST without a connection (000 to 003), lost connections, deadlock, lock not available, memory, too many
	// connections, shutting down, crashed, starting up; and serialization failure, which no function of ours raises.
	{code: "PGRST000", again: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{code: "PGRST001", again: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{code: "PGRST002", again: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{code: "PGRST003", again: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{code: "08*", again: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{code: "40P01", again: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{code: "40001", again: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{code: "55P03", again: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{code: "53200", again: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{code: "53300", again: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{code: "57P01", again: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{code: "57P02", again: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{code: "57P03", again: true, is: CodeDatabaseUnreachable, says: messageUnreachable},

	// What somebody has to end.
	{code: "53100", is: CodeUnavailable, says: "the database's disk is full: enlarge it in Supabase's dashboard (Settings, Compute and Disk), or delete what is not needed there"},
	{code: "25006", is: CodeUnavailable, says: "the database takes no writes: Supabase makes a project read-only whose disk or quota is nearly full. Enlarge it, or make room (https://supabase.com/docs/guides/platform/database-size)"},
	{from: http.StatusPaymentRequired, is: CodeUnavailable, says: "Supabase has restricted the project, since its organization is over a quota or a bill is overdue: see Usage and Billing in Supabase's dashboard"},
	{from: 540, is: CodeUnavailable, says: "the Supabase project is paused, as free ones are after a week without traffic: restore it in Supabase's dashboard"},
	{from: http.StatusForbidden, page: true, is: CodeUnavailable, says: "the request was blocked before it reached the Supabase project, so the key is not the reason: look at the project's network restrictions, and at status.supabase.com"},

	// A gateway's own answers.
	{from: http.StatusUnauthorized, is: CodeNotConfigured, says: messageRefused},
	{from: http.StatusForbidden, is: CodeNotConfigured, says: messageRefused},
	{from: http.StatusNotAcceptable, is: CodeNotConfigured, says: messageNotExposed},
	{from: http.StatusTooManyRequests, again: true, is: CodeRateLimited, says: "Supabase limits the rate of requests; try again in a moment"},
	{from: http.StatusBadGateway, to: http.StatusGatewayTimeout, again: true, is: CodeDatabaseUnreachable, says: messageUnreachable},
	{from: 520, to: 530, again: true, is: CodeDatabaseUnreachable, says: messageUnreachable}, // Cloudflare cannot reach the project
	{from: 544, again: true, is: CodeDatabaseUnreachable, says: messageUnreachable},          // the gateway's own limit of time
	{from: 200, to: 299, again: true, is: CodeDatabaseUnreachable, says: messageMalformed},   // a page, as during maintenance
	{from: 300, to: 499, is: CodeDatabaseUnreachable, says: messageMalformed},
	{from: 500, to: 599, is: CodeDatabaseUnreachable, says: messageUnreachable},

	{code: "*", is: CodeDatabaseUnreachable, says: messageFailed},
}

const (
	messageUnstorable = "the database cannot store the value"
	messageNoSchema   = "the database lacks the kv_* functions: apply supabase/migrations, as README.md says"
	messageNotExposed = "Supabase's API does not serve the schema public: add it to the exposed schemas in Supabase's dashboard (Integrations, Data API)"
)

// markTransient marks what another attempt may not meet: failures that the table says pass by themselves, and whatever came without
// an answer, such as a lost connection or an attempt's timeout. A nil error stays nil.
func markTransient(err error) error {
	var e *postgrestError
	switch {
	case err == nil, errors.As(err, &e) && !e.failure().again:
		return err
	case e != nil:
		return &upstream.TransientError{Err: err, After: e.RetryAfter}
	}
	return &upstream.TransientError{Err: err}
}

// failure is what the answer means. It goes by code first: PostgREST answers a deadlock with status 500, and a query that was stopped, too.
func (e *postgrestError) failure() failure {
	return failures[slices.IndexFunc(failures, func(f failure) bool { return f.fits(e) })] // the last fits all
}

func (f failure) fits(e *postgrestError) bool {
	if f.code != "" {
		prefix, all := strings.CutSuffix(f.code, "*")
		return e.Code == f.code || all && strings.HasPrefix(e.Code, prefix)
	}
	return !ofPostgres.MatchString(e.Code) && e.Status >= f.from && e.Status <= max(f.from, f.to) && (!f.page || e.Page)
}

// ofPostgres matches the codes of Postgres and PostgREST. A gateway has codes of its own.
var ofPostgres = regexp.MustCompile(`^([0-9A-Z]{5}|PGRST[0-9A-Z]+)$`)

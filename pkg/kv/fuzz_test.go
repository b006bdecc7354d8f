package kv

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

// FuzzChanges checks that a response of the change feed is decoded completely or refused, and that no key in it is
// missed.
func FuzzChanges(f *testing.F) {
	f.Add(`{"cursor":"e/1/3:5:4","all":false,"keys":["b","a","a/b"]}`+"\n{}", "a")
	f.Add(`{"cursor":"e/1/3:5:","all":true,"keys":[]}`+"\n", "")
	f.Add(`{"cursor":"e","all":null,"keys":null}`, "x")
	f.Fuzz(func(t *testing.T, text, key string) {
		var c changes
		rest, err := cutChanges("kv_get", text, &c)
		if err != nil {
			require.Equal(t, CodeDatabaseUnreachable, CodeOf(err))
			require.NotContains(t, err.Error(), text[:min(len(text), 40)]+"\x00")
			return
		}
		require.True(t, strings.HasSuffix(text, "\n"+rest))
		require.NotEmpty(t, c.Cursor)
		require.Equal(t, c.All || slices.Contains(c.Keys, key), c.touches(scope{text: key, one: true}))
		under := func(k string) bool { return strings.HasPrefix(k, key) }
		require.Equal(t, c.All || slices.ContainsFunc(c.Keys, under), c.touches(scope{text: key}))
	})
}

// FuzzCovers checks that an invented version, or one of another database, is never covered.
func FuzzCovers(f *testing.F) {
	for _, seed := range [][2]string{{"01234567e/1/3:9:4,5", "01234567.4"}, {"01234567e/1/3:9:4,5", "01234567.8"}, {"01234567e/1/3:9:", "01234567.9"},
		{"01234567e/1/3:9:", "12345678.1"}, {"", ""}, {"01234567e//::", "01234567."}, {"01234567e/1/3:9:4", "01234567.04"}, {"01234567e/1/3:9:4", "01234567.+4"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, cursor, version string) {
		if !covers(cursor, version) {
			return
		}
		boot, id, found := strings.Cut(version, ".")
		require.True(t, found && len(boot) == bootDigits && strings.HasPrefix(cursor, boot))
		require.Empty(t, strings.Trim(id, "0123456789"))
		running := strings.Split(cursor[strings.LastIndex(cursor, ":")+1:], ",")
		require.NotContains(t, running, cmp.Or(strings.TrimLeft(id, "0"), "0"))
	})
}

// FuzzStrings checks that JSON strings round-trip, and that half of a surrogate pair is found.
func FuzzStrings(f *testing.F) {
	for _, text := range []string{"", "a\"\\/\b\f\n\r\t\x00\x1f\x7f\u2028é😀", "\xff", "\\ud800", `\ud83d\ude00`, `\ud800\ud83d\ude00`, `\\ud800`, `\ude00\ud83d`, "\ufffd", `\ufffd`, `\ud83d\u0041`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		written := AppendString(nil, text)
		require.True(t, json.Valid(written))
		require.False(t, HasLoneSurrogate(string(written)), "there are none in UTF-8")
		if utf8.ValidString(text) {
			var back string
			require.NoError(t, json.Unmarshal(written, &back))
			require.Equal(t, text, back)
		}

		quoted := `"` + text + `"` // a string with the text's escapes
		var decoded string
		if !utf8.ValidString(text) || json.Unmarshal([]byte(quoted), &decoded) != nil {
			return
		}
		if strings.Contains(text, "\ufffd") || strings.Contains(strings.ToLower(text), `\ufffd`) {
			return // Go decodes half a pair to the same
		}
		require.Equal(t, strings.Contains(decoded, "\ufffd"), HasLoneSurrogate(quoted), "%s", quoted)
	})
}

// FuzzMembers checks that a string and a number never make the same member, and that members round-trip through JSON.
func FuzzMembers(f *testing.F) {
	for _, text := range []string{"", "5", "5.0", "-1e400", "\x015", "\x01", "\x01\x01", "\"a\"", `"5"`, `"\u00015"`, `"\u0000"`, `"\ud800"`, "a\xff", "05", "1]", "null"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if isText(text) {
			m := TextMember(text)
			require.False(t, m.IsNumber(), "%q", text)
			require.Equal(t, text, m.Text())
			back, ok := ParseMember(string(m.AppendJSON(nil)))
			require.True(t, ok)
			require.Equal(t, m, back)
		}
		if !json.Valid([]byte(text)) || strings.TrimSpace(text) != text {
			return
		}
		m, ok := ParseMember(text)
		require.Equal(t, ok && text[0] != '"', m.IsNumber(), "%q", text)
		if !ok {
			return
		}
		if m.IsNumber() {
			require.Equal(t, text, m.Text())
			require.Equal(t, text, string(m.AppendJSON(nil)))
			require.NoError(t, Index{Key: "k", Member: m}.validate("e"))
		}
		all, isArray := ParseMembers("[ " + text + " , {\"a\":1}]")
		require.True(t, isArray)
		require.Equal(t, []Member{m}, all)
	})
}

// FuzzDepth compares the depth with a parser's.
func FuzzDepth(f *testing.F) {
	for _, text := range []string{`{}`, `[[],{"a":[1]}]`, `{"[":"]\"["}`, `"\\"`, `null`, `[["\\\"["]]`, strings.Repeat("[", 50) + strings.Repeat("]", 50)} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !json.Valid([]byte(text)) {
			return
		}
		deepest, level := 0, 0
		for decoder := json.NewDecoder(strings.NewReader(text)); ; {
			token, err := decoder.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil { // valid JSON with a number beyond float64
				return
			}
			switch token {
			case json.Delim('{'), json.Delim('['):
				level++
				deepest = max(deepest, level)
			case json.Delim('}'), json.Delim(']'):
				level--
			}
		}
		require.Equal(t, deepest, depth(text))
	})
}

// roundTrip is a function as an [http.RoundTripper].
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// FuzzPostgRESTResponses checks that any response gives one of a few fixed messages, except those that the kv_*
// functions write for callers.
func FuzzPostgRESTResponses(f *testing.F) {
	for _, seed := range []struct {
		status                 int
		mediaType, retry, body string
	}{
		{200, responseType, "", "{}"}, {200, "text/html", "", "<h1>maintenance</h1>"}, {500, "application/json", "", `{"code":"40P01","message":"deadlock on host db.example"}`},
		{400, "application/json; charset=utf-8", "", `{"code":"22P02","message":"invalid input syntax: \"secret\""}`}, {400, "application/json", "", `{"code":"PT400","message":"for the caller"}`},
		{429, "", "3", "slow down"}, {503, "", "99999999999", "{"}, {401, "", "", `{"message":"Invalid API key"}`}, {400, "application/json", "", `{"code":""}`}, {404, ";;", "-1", `{"code":1}`}, {503, "", "9223372037", ""},
	} {
		f.Add(seed.status, seed.mediaType, seed.retry, seed.body)
	}
	f.Fuzz(func(t *testing.T, status int, mediaType, retry, body string) {
		if status < 200 || status > 599 {
			return
		}
		transport := &postgrestTransport{base: roundTrip(func(*http.Request) (*http.Response, error) {
			header := http.Header{"Content-Type": {mediaType}, "Retry-After": {retry}}
			return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body))}, nil
		})}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, schemePrefix+"https://db.example/rest/v1/rpc/kv_get", nil)
		require.NoError(t, err)
		response, err := transport.RoundTrip(request)
		if err == nil {
			require.Equal(t, http.StatusOK, status)
			text, err := io.ReadAll(response.Body)
			require.NoError(t, err)
			require.Equal(t, body, string(text), "an answer passes untouched")
			return
		}
		e := callError("kv_get", err)
		require.Contains(t, Codes, e.Code)
		require.NotEqual(t, CodeInternal, e.Code)
		var answer *postgrestError
		require.ErrorAs(t, err, &answer)
		require.GreaterOrEqual(t, answer.RetryAfter, time.Duration(0))
		require.LessOrEqual(t, answer.RetryAfter, time.Hour)
		if says := answer.failure().says; says != "" {
			require.Equal(t, says, e.Message)
		} else {
			require.Contains(t, []string{"PT400", "PT409", "PT413"}, answer.Code, "whose messages are for callers")
		}
		if strings.HasPrefix(answer.Code, "22") && len(answer.Message) > 80 {
			require.NotContains(t, e.Error(), answer.Message, "it may quote a value, which the log must not have")
		}
	})
}

// FuzzProjects checks that an invalid address or key is refused before it is used, and not quoted.
func FuzzProjects(f *testing.F) {
	for _, seed := range [][2]string{{"https://x.supabase.co/", "key"}, {"x.supabase.co", "key"}, {" http://[::1]:1 ", " k\n"}, {"http://%zz", ""}, {"https://u:p@host", "é"}, {"ftp://x", "k"}, {"https://x/?q#f", "k"}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, address, key string) {
		store, err := NewSupabase(address, key)
		if err == nil {
			require.NotNil(t, store)
			return
		}
		require.Equal(t, CodeNotConfigured, CodeOf(err))
		var e *Error
		require.ErrorAs(t, err, &e)
		if secret := strings.TrimSpace(key); len(secret) > 30 {
			require.NotContains(t, err.Error(), secret)
		}
		if len(address) > 40 {
			require.NotContains(t, e.Message, address)
		}
	})
}

// FuzzRowRevision checks that revisions are ordered by their numbers and that a text which parses is written back as
// it was.
func FuzzRowRevision(f *testing.F) {
	f.Add(int64(1), int64(2), int64(1), int64(3), "..")
	f.Add(int64(2), int64(0), int64(1), int64(3), "a.x.2")
	f.Add(int64(-1), int64(0), int64(-1), int64(0), "a.1.2")
	f.Fuzz(func(t *testing.T, version, members, otherVersion, otherMembers int64, text string) {
		a, b := RowRevision{"database", version, members}, RowRevision{"database", otherVersion, otherMembers}
		order := cmp.Or(cmp.Compare(version, otherVersion), cmp.Compare(members, otherMembers))
		require.Equal(t, order < 0, a.Before(b))
		require.Equal(t, order > 0, b.Before(a))
		require.Equal(t, version == otherVersion, a.SameRow(b))
		again, err := ParseRowRevision(a.String())
		require.NoError(t, err)
		require.Equal(t, a, again)
		if parsed, err := ParseRowRevision(text); err == nil {
			again, err := ParseRowRevision(parsed.String())
			require.NoError(t, err)
			require.Equal(t, parsed, again)
			if parsed.Database != a.Database {
				require.True(t, parsed.Before(a) && a.Before(parsed), "revisions of other databases have no order")
				require.False(t, a.SameRow(parsed))
			}
		}
	})
}

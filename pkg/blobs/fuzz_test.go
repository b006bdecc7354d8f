package blobs

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/kv"

	"netlify-supabase-kv/pkg/upstream"
)

// FuzzAccessFromEvent checks that the blobs field is decoded completely or refused, and that no error quotes it.
func FuzzAccessFromEvent(f *testing.F) {
	for _, text := range []string{`{"url":"https://edge.example","url_uncached":"https://u.example","token":"t"}`, `{"url":"x","token":""}`, `[]`, `{"url":1}`, ``} {
		f.Add(text, "", "site")
	}
	f.Add("", "-_-_", "site")
	f.Add("", "e30", "")
	f.Fuzz(func(t *testing.T, text, field, site string) {
		if text != "" {
			field = base64.StdEncoding.EncodeToString([]byte(text))
		}
		a, err := AccessFromEvent(field, site)
		if err != nil {
			require.Equal(t, Access{}, a)
			if len(text) > 20 {
				require.NotContains(t, err.Error(), text)
			}
			return
		}
		require.True(t, a.Usable())
		require.Equal(t, site, a.SiteID)
		require.NotEmpty(t, a.token())
	})
}

// FuzzAddress checks that the address of any key is that of a single blob of the store, on the access's host.
func FuzzAddress(f *testing.F) {
	for _, key := range append(oddKeys, "", "/a", "a%2Fb", "q?x", "a/../b", "../../other/kv/k", "//evil.example/x", "\\\\evil.example", "\xff") {
		f.Add("site", key)
	}
	f.Add("../x", "k")
	const store = "site:kv"
	f.Fuzz(func(t *testing.T, site, key string) {
		if ValidateKey(key) != nil || site == "" {
			return
		}
		for _, a := range []Access{
			{SiteID: site, EdgeURL: "https://edge.example/base?a=b", EdgeToken: "t"},
			{SiteID: site, APIURL: "https://api.example", APIToken: "t"},
		} {
			u, err := a.address(store, key, url.Values{"prefix": {key}})
			if err != nil {
				continue
			}
			require.Contains(t, []string{"edge.example", "api.example"}, u.Host)
			if strings.Contains(site, "/") || site == "." || site == ".." { // callers do not choose these
				continue
			}
			require.True(t, strings.HasSuffix(u.EscapedPath(), "/"+url.PathEscape(site)+"/"+escape(store)+"/"+escape(key)), "%s", u)
			require.Equal(t, key, u.Query().Get("prefix"))
			decoded, err := url.PathUnescape(escape(key))
			require.NoError(t, err)
			require.Equal(t, key, decoded)
		}
	})
}

// FuzzErrorResponses checks that the error of any other status has a bounded wait, and neither token nor address.
func FuzzErrorResponses(f *testing.F) {
	for _, seed := range []struct {
		status                                  int
		retry, reset, date, sentence, requestID string
	}{
		{429, "3", "", "", "", ""}, {429, "", "1795439674", "Mon, 23 Nov 2026 07:00:00 GMT", "too many", "01H"}, {503, "Mon, 23 Nov 2026 07:00:09 GMT", "", "Mon, 23 Nov 2026 07:00:00 GMT", "", ""},
		{500, "99999999999", "", "", "the-secret-token", ""}, {429, "9223372037", "9223372036854775807", "x", strings.Repeat("é", 200), "\xff"}, {403, "-5", "-9223372036854775808", "", "https://signed.example/x?sig=1", ""},
		{429, "", "9999999999999", "", "", ""}, {503, "Mon, 23 Nov 9999 07:00:09 GMT", "", "Mon, 23 Nov 1000 07:00:00 GMT", "", ""},
	} {
		f.Add(seed.status, seed.retry, seed.reset, seed.date, seed.sentence, seed.requestID)
	}
	f.Fuzz(func(t *testing.T, status int, retry, reset, date, sentence, requestID string) {
		header := http.Header{"Retry-After": {retry}, "X-Ratelimit-Reset": {reset}, "X-Ratelimit-Limit": {"500"}, "X-Ratelimit-Remaining": {retry}, "Date": {date}, "X-Nf-Error": {sentence}, "X-Nf-Request-Id": {requestID}}
		a := response{op: "get", status: status, header: header, secrets: []string{"https://signed.example/x?sig=1", "sig=1", token}}
		err := a.unexpected()
		var e *Error
		require.ErrorAs(t, err, &e)
		require.GreaterOrEqual(t, e.RetryAfter, time.Duration(0))
		require.LessOrEqual(t, e.RetryAfter, time.Hour)
		if seconds := strings.Trim(retry, "0123456789"); len(retry) < 19 && seconds == "" && strings.Trim(retry, "0") != "" {
			require.Positive(t, e.RetryAfter, "a pause that was asked for is made")
		}
		limiter := NewLimiter(0, window)
		limiter.learn(a)
		require.LessOrEqual(t, time.Until(limiter.heldUntil()), time.Hour)
		if status != http.StatusTooManyRequests {
			require.LessOrEqual(t, time.Until(limiter.heldUntil()), window)
		}
		require.NotContains(t, err.Error(), token)
		require.NotContains(t, err.Error(), "sig=1")
		require.LessOrEqual(t, len(e.Message), maxMessageBytes)
		require.True(t, utf8.ValidString(e.Message))
	})
}

// FuzzLists checks that any response to a list request gives a list or an error, and that the list ends.
func FuzzLists(f *testing.F) {
	for _, body := range []string{`{"blobs":[{"key":"a","etag":"e","size":3,"last_modified":"2026-11-23T07:00:00Z"},{"etag":"x"}],"next_cursor":""}`, `{}`, `[]`, `null`, `{"blobs":null}`,
		`{"blobs":[{"key":1}]}`, `{"blobs":[{"key":"k","size":1e99}]}`, `<html>`, `{"next_cursor":"c"}`, ``} {
		f.Add(200, body)
	}
	f.Add(404, "")
	f.Fuzz(func(t *testing.T, status int, body string) {
		if status < 200 || status > 599 {
			return
		}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
		}))
		defer server.Close()
		client := NewClient("kv").withRetry(upstream.Policy{FirstPause: 1, MaxPause: 1, Total: 20 * time.Millisecond}, Access{SiteID: "site", EdgeURL: server.URL, EdgeToken: token})
		for listed, err := range client.List(t.Context(), "") {
			if err != nil {
				require.NotContains(t, err.Error(), token)
				require.NotContains(t, err.Error(), server.URL)
				continue
			}
			require.NotEmpty(t, listed.Key)
			require.True(t, utf8.ValidString(listed.Key))
		}
	})
}

// FuzzForeignMetadata checks that any header gives metadata or none, which fit when they are written again.
func FuzzForeignMetadata(f *testing.F) {
	for _, value := range []string{"", "b64;", "b64;e30=", "b64;eyJjIjoxLCJpIjpbWyJhIiwiYiJdXX0=", "b64;eyJpIjoxfQ==", "x", "b64;!", "b64;bnVsbA=="} {
		f.Add(value, "")
	}
	f.Add("", `{"v":"l.1.2","c":-1,"u":9223372036854775807,"i":[["a"],["b","c","d"],[]],"s":"../x"}`)
	f.Fuzz(func(t *testing.T, value, text string) {
		if text != "" {
			value = metadataPrefix + base64.StdEncoding.EncodeToString([]byte(text))
		}
		header := http.Header{}
		header.Set(MetadataHeader, value)
		decoded, err := decodeMetadata(header)
		if err != nil {
			return
		}
		m := parseMetadata(decoded)
		again := parseMetadata(m.text())
		require.Equal(t, m.text(), again.text(), "what was understood is kept")
		require.Equal(t, m.Revision, again.Revision)
		require.Equal(t, [2]int64{m.Created, m.Updated}, [2]int64{again.Created, again.Updated})
	})
}

// FuzzAppendMembers checks that an array keeps its text and gains each new member once, and that any other text
// becomes an array.
func FuzzAppendMembers(f *testing.F) {
	f.Add(`[5, "5.0", 5.0]`, "5", "5.0")
	f.Add(`["\u00015", 1e400]`, "\x015", "1e400")
	for _, text := range []string{`[]`, ` [ "a" , 1 ] `, `{}`, `null`, `x`, ``, `["\u0061"]`, `["\ud800"]`, `[["a"],{"b":"]"}]`, "[\n]"} {
		f.Add(text, "a", "b")
	}
	f.Fuzz(func(t *testing.T, text, one, other string) {
		one, other = strings.ToValidUTF8(strings.ReplaceAll(one, "\x00", ""), ""), strings.ToValidUTF8(strings.ReplaceAll(other, "\x00", ""), "")
		members := []kv.Member{kv.TextMember(one), kv.TextMember(other), kv.TextMember(one)}
		for _, text := range []string{one, other} {
			if number := json.Number(""); json.Unmarshal([]byte(text), &number) == nil && text == string(number) && text != "" {
				members = append(members, kv.NumberMember(text))
			}
		}
		var before []json.RawMessage
		wasList := json.Unmarshal([]byte(text), &before) == nil && before != nil
		appended, grown := appendMembers(text, members)
		var after []json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(appended), &after), "%s", appended)
		if wasList {
			require.Equal(t, before, after[:len(before)])
		} else {
			before = nil
		}
		require.Equal(t, grown, len(after) > len(before))
		for _, member := range []string{one, other} {
			found := 0
			for i, element := range after {
				var s string
				if element[0] == '"' && json.Unmarshal(element, &s) == nil && s == member && (i >= len(before) || !strings.Contains(s, "\ufffd")) {
					found++
				}
			}
			if !wasList {
				require.Equal(t, 1, found, "%q in %s", member, appended)
			} else if !strings.Contains(member, "\ufffd") {
				require.Positive(t, found, "%q in %s", member, appended)
			}
		}
		for _, member := range members {
			present, _ := kv.ParseMembers(appended)
			require.True(t, slices.Contains(present, member) || strings.Contains(member.Text(), "\ufffd"), "%q in %s", member, appended)
		}
		if again, grown := appendMembers(appended, members); !strings.Contains(one+other, "\ufffd") {
			require.False(t, grown, "members are there already")
			require.Equal(t, appended, again)
		}
	})
}

// FuzzConditions checks that an etag that a header cannot hold is refused before a request is sent.
func FuzzConditions(f *testing.F) {
	f.Add(`"etag"`, false)
	f.Add("a\r\nX-Evil: 1", false)
	f.Add("", true)
	f.Fuzz(func(t *testing.T, etag string, isNew bool) {
		header, err := SetOptions{IfMatch: etag, IfNew: isNew}.header()
		if err != nil {
			require.True(t, !validHeaderText(etag) || etag != "" && isNew)
			return
		}
		require.NotContains(t, header.Get("If-Match"), "\n")
		require.Equal(t, etag, header.Get("If-Match"))
	})
}

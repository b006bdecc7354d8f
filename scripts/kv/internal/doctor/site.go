package doctor

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"netlify-supabase-kv/pkg/kv"
)

// call is a request to the site.
type call struct {
	method, path, body string
	token              string // "" sends none
	header             map[string]string
}

func (in *Input) ask(ctx context.Context, c call) (*response, error) {
	r, err := http.NewRequestWithContext(ctx, c.method, in.Site+c.path, strings.NewReader(c.body))
	if err != nil {
		return nil, err
	}
	if c.body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
	for name, value := range c.header {
		r.Header.Set(name, value)
	}
	return in.do(r)
}

// apiToken returns a token for everything, readToken one that suffices for reading; "" if none is known.
func (in *Input) apiToken() string { return first(in.Getenv("KV_API_TOKEN")) }

func (in *Input) readToken() string {
	if token := in.apiToken(); token != "" {
		return token
	}
	return first(in.Getenv("KV_READ_TOKEN"))
}

func first(variable string) string {
	if list := tokens(variable); len(list) > 0 && !isHidden(variable) {
		return list[0]
	}
	return ""
}

// message returns the error message of one of our functions; "" for any other response.
func (r *response) message() string {
	var fields struct{ Error string }
	_ = json.Unmarshal(r.body, &fields)
	return fields.Error
}

const (
	deployAgain = "deploy this release to the site; kv doctor without --site shows what is in the way"
	sameDeploy  = "check whether all functions have the same variables and are of one deploy"
	giveToken   = "set KV_API_TOKEN to the site's value where kv doctor runs"
)

// tokenNeeded is the finding for a site that needs a token that is unknown here.
func tokenNeeded(r *response) []Finding {
	return skip("not checked: the site answers %d (%s); %s", r.status, r.message(), giveToken)
}

func unreachable(err error) []Finding {
	return fail("the site does not answer: "+rootCause(err), "check the address, and whether the site is up (Netlify: Deploys)")
}

func checkSiteFunctions(ctx context.Context, in *Input) (findings []Finding) {
	answering := 0
	for _, f := range functions {
		for _, address := range []string{f.direct(), f.short()} {
			if address == "" {
				continue
			}
			token := in.apiToken()
			if f.reads {
				token = in.readToken()
			}
			got, err := in.ask(ctx, call{method: f.method, path: address + f.query, body: f.body, token: token})
			switch {
			case err != nil:
				return unreachable(err)
			case f.optional && got.status == http.StatusNotFound:
				continue
			}
			answering++
			findings = append(findings, in.judgeFunction(f, address, got)...)
		}
	}
	if len(findings) == 0 {
		return ok("%d addresses answer with release %s", answering, kv.Release)
	}
	return findings
}

// releaseHeader holds the release of the function that answers.
const releaseHeader = "X-Kv-Release"

// onlyBlobs reports whether a function that needs Supabase answered that Netlify Blobs is the primary. If the
// variables name Blobs as the primary, that is correct.
func (in *Input) onlyBlobs(got *response) bool {
	return !in.supabaseFirst() && got.status == http.StatusServiceUnavailable && strings.Contains(got.message(), "needs Supabase, and Netlify Blobs answers here")
}

func (in *Input) judgeFunction(f function, address string, got *response) []Finding {
	release := got.header.Get(releaseHeader)
	switch {
	case got.isPage() || !strings.HasPrefix(got.header.Get("Content-Type"), "application/json"):
		return fail(fmt.Sprintf("%s answers with a page (status %d), not with JSON", address, got.status), "see the checks functions-directory and redirects: the function is not deployed, or another rule comes first")
	case release == "":
		return fail(fmt.Sprintf("%s is not served by a function of this project, or by one from before the first release", address), "remove the other function of that name, and "+deployAgain)
	case release != kv.Release:
		return fail(fmt.Sprintf("%s is of release %s, but this kv doctor is of %s", address, release, kv.Release), deployAgain+"; or run the kv doctor of that release")
	case got.status == http.StatusUnauthorized: // checkSiteTokens reports that
		return nil
	case got.status == http.StatusServiceUnavailable && f.optional: // a site that does not use Blobs cannot reach it
		return nil
	case in.onlyBlobs(got):
		return nil
	case got.status != f.status:
		return fail(fmt.Sprintf("%s answers with status %d: %s", address, got.status, got.message()), "do what the message says; details are in the function's log (Netlify: Logs & Metrics, Functions)")
	}
	return nil
}

func checkSiteTokens(ctx context.Context, in *Input) (findings []Finding) {
	type expectation struct {
		token, with string
		reads, open bool
	}
	api, read := tokens(in.Getenv("KV_API_TOKEN")), tokens(in.Getenv("KV_READ_TOKEN"))
	if isHidden(in.Getenv("KV_API_TOKEN")) || isHidden(in.Getenv("KV_READ_TOKEN")) {
		return skip("not checked: the tokens are hidden in the file; %s", giveToken)
	}
	if in.knowsNothing() {
		return in.guessTokens(ctx)
	}
	restricted := len(api)+len(read) > 0
	expect := []expectation{
		{"", "without a token", true, !restricted}, {"", "without a token", false, !restricted},
		{"wrong-" + rand.Text(), "with a wrong token", true, !restricted}, {"wrong-" + rand.Text(), "with a wrong token", false, !restricted},
	}
	for i, token := range api {
		with := fmt.Sprintf("with token %d of KV_API_TOKEN", i+1)
		expect = append(expect, expectation{token, with, true, true}, expectation{token, with, false, true})
	}
	for i, token := range read {
		with := fmt.Sprintf("with token %d of KV_READ_TOKEN", i+1)
		expect = append(expect, expectation{token, with, true, true}, expectation{token, with, false, slices.Contains(api, token)})
	}
	for _, e := range expect {
		f, does := functionNamed("kv-upsert"), "a write"
		if e.reads {
			f, does = functionNamed("kv-list"), "a read"
		}
		got, err := in.ask(ctx, call{method: f.method, path: f.direct() + f.query, body: f.body, token: e.token})
		switch refused := got != nil && got.status == http.StatusUnauthorized; {
		case err != nil:
			return unreachable(err)
		case got.status != f.status && !refused:
			return skip("not checked: %s answers with status %d", f.name, got.status)
		case refused && e.open:
			findings = append(findings, Finding{Fail, fmt.Sprintf("%s %s is refused: %s", does, e.with, got.message()), "set the same tokens on the site as here (" + inNetlify + ")"})
		case !refused && !e.open:
			findings = append(findings, Finding{Fail, fmt.Sprintf("%s %s is allowed", does, e.with), "set the tokens on the site too, in the scope Functions and for this deploy context (" + inNetlify + ")"})
		}
	}
	switch {
	case len(findings) > 0:
		return findings
	case !restricted:
		return siteIsOpen
	}
	return ok("%d tokens allow what they should, and a missing or wrong token allows nothing", len(api)+len(read))
}

// siteIsOpen is the finding for a site that needs no token.
var siteIsOpen = warn("the site has no token: everyone can read, write and delete", "set KV_API_TOKEN to the output of: openssl rand -hex 32 ("+inNetlify+")")

// guessTokens checks a site whose variables are unknown.
func (in *Input) guessTokens(ctx context.Context) []Finding {
	f := functionNamed("kv-upsert")
	got, err := in.ask(ctx, call{method: f.method, path: f.direct(), body: f.body})
	switch {
	case err != nil:
		return unreachable(err)
	case got.status == f.status:
		return siteIsOpen
	case got.status == http.StatusUnauthorized:
		return skip("not checked: the site needs a token, and its tokens are unknown here (--env-file)")
	}
	return skip("not checked: %s answers with status %d", f.name, got.status)
}

// probe is an entry that a check writes to the site and removes again.
type probe struct {
	in  *Input
	key string
}

// withProbe writes an entry, runs look, and removes the entry whatever happens.
func (in *Input) withProbe(ctx context.Context, look func(ctx context.Context, p probe, written *response) []Finding) (findings []Finding) {
	if in.ReadOnly {
		return skip("not checked: --read-only is given, and this check writes an entry")
	}
	p := probe{in, "kv-doctor/" + rand.Text()}
	written, err := p.write(ctx, 1)
	switch {
	case err == nil && written.status == http.StatusUnauthorized:
		return tokenNeeded(written)
	case err == nil && written.status < http.StatusInternalServerError && written.status != http.StatusOK:
		return writeFails(written)
	}
	defer func() { findings = append(findings, p.cleanUp(ctx)...) }() // in all other cases the entry may have been written
	switch {
	case err != nil:
		return unreachable(err)
	case written.status != http.StatusOK:
		return writeFails(written)
	}
	return look(ctx, p, written)
}

func writeFails(r *response) []Finding {
	return fail(fmt.Sprintf("a write fails with status %d: %s", r.status, r.message()), "do what the message says; details are in the function's log (Netlify: Logs & Metrics, Functions)")
}

// uninterrupted bounds what an interruption must not cut off. The functions answer within 15 s.
func uninterrupted(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
}

// cleanUp removes the entry, also after a timeout or an interruption.
func (p probe) cleanUp(ctx context.Context) []Finding {
	ctx, cancel := uninterrupted(ctx)
	defer cancel()
	if got, err := p.remove(ctx); err != nil || got.status != http.StatusOK {
		return warn("the entry "+p.key+" may be left on the site", "delete it: curl -X DELETE '"+p.in.Site+"/.netlify/functions/kv-delete?key="+p.key+"'")
	}
	return nil
}

// write writes the entry. A write that is cut off may be applied after cleanUp.
func (p probe) write(ctx context.Context, n int) (*response, error) {
	ctx, cancel := uninterrupted(ctx)
	defer cancel()
	return p.in.ask(ctx, call{method: http.MethodPost, path: functionsPrefix + "kv-upsert", body: fmt.Sprintf(`{"key":%q,"value":%s}`, p.key, value(n)), token: p.in.apiToken()})
}

func (p probe) remove(ctx context.Context) (*response, error) {
	return p.in.ask(ctx, call{method: http.MethodPost, path: functionsPrefix + "kv-delete", body: fmt.Sprintf(`{"key":%q}`, p.key), token: p.in.apiToken()})
}

// get reads the entry; header may bound its staleness.
func (p probe) get(ctx context.Context, header map[string]string) (*response, error) {
	return p.in.ask(ctx, call{method: http.MethodGet, path: functionsPrefix + "kv-get?key=" + url.QueryEscape(p.key), token: p.in.readToken(), header: header})
}

// value returns the value that write writes.
func value(n int) string { return fmt.Sprintf(`{"n":%d,"exact":1.0}`, n) }

// newest asks for a response that bypasses the cache.
var newest = map[string]string{"Cache-Control": "no-cache"}

func checkSiteWrite(ctx context.Context, in *Input) []Finding {
	return in.withProbe(ctx, func(ctx context.Context, p probe, _ *response) []Finding {
		done := "written, read back, listed, found and deleted"
		for _, read := range []struct{ does, path string }{
			{"read back", functionsPrefix + "kv-get?key=" + url.QueryEscape(p.key)},
			{"listed", functionsPrefix + "kv-list?includeValues=true&prefix=" + url.QueryEscape(p.key)},
			{"found by a query", functionsPrefix + "kv-query?prefix=" + url.QueryEscape(p.key)},
		} {
			got, err := in.ask(ctx, call{method: http.MethodGet, path: read.path, token: in.readToken(), header: newest})
			switch {
			case err != nil:
				return unreachable(err)
			case in.onlyBlobs(got):
				done = "written, read back, listed and deleted; the primary is Netlify Blobs, which has no queries"
				continue
			case got.status != http.StatusOK:
				return fail(fmt.Sprintf("the written entry is not %s: status %d, %s", read.does, got.status, got.message()), sameDeploy)
			case !strings.Contains(string(got.body), value(1)):
				return fail("the written entry is not "+read.does+" byte for byte", sameDeploy)
			}
		}
		if got, err := p.remove(ctx); err != nil {
			return unreachable(err)
		} else if !strings.Contains(string(got.body), `"deleted":true`) {
			return fail(fmt.Sprintf("the written entry is not deleted: status %d, %s", got.status, got.message()), "see the log of kv-delete (Netlify: Logs & Metrics, Functions)")
		}
		if got, err := p.get(ctx, newest); err != nil {
			return unreachable(err)
		} else if got.status != http.StatusNotFound {
			return fail(fmt.Sprintf("the deleted entry is read with status %d", got.status), sameDeploy)
		}
		return ok("%s", done)
	})
}

// versionHeader is in the response of every write to Supabase.
const versionHeader = "X-Kv-Version"

// rounds is how often a staleness check reads: a site has several instances, each with a separate cache.
const rounds = 8

func checkSiteStaleness(ctx context.Context, in *Input) []Finding {
	bound := in.MaxStale()
	return in.withProbe(ctx, func(ctx context.Context, p probe, _ *response) []Finding {
		for range rounds { // fill the caches of several instances
			if _, err := p.get(ctx, nil); err != nil {
				return unreachable(err)
			}
		}
		written, err := p.write(ctx, 2)
		if err != nil {
			return unreachable(err)
		}
		if version := written.header.Get(versionHeader); version != "" {
			got, err := p.get(ctx, map[string]string{"X-KV-After": version})
			switch {
			case err != nil:
				return unreachable(err)
			case !strings.Contains(string(got.body), value(2)):
				return fail("a read that names a write's version (X-KV-After) does not see the write", "check whether a proxy or the CDN caches responses or drops the header X-KV-After")
			}
		}
		select {
		case <-time.After(bound + 100*time.Millisecond):
		case <-ctx.Done():
			return nil
		}
		for range rounds {
			got, err := p.get(ctx, nil)
			switch {
			case err != nil:
				return unreachable(err)
			case !strings.Contains(string(got.body), value(2)):
				return fail(fmt.Sprintf("a read is staler than %s (X-KV-Cache: %s, Age: %s)", bound, got.header.Get("X-Kv-Cache"), got.header.Get("Age")),
					"check whether a proxy or the CDN caches responses in spite of Cache-Control: no-cache, and whether KV_CACHE_MAX_STALE is the same here and on the site")
			}
		}
		return ok("no read was staler than %s, and a read that named a write's version saw that write", bound)
	})
}

func checkSiteHeaders(ctx context.Context, in *Input) []Finding {
	return in.withProbe(ctx, func(ctx context.Context, p probe, written *response) (findings []Finding) {
		read, err := p.get(ctx, nil)
		if err != nil {
			return unreachable(err)
		}
		lost := func(of string, r *response, names ...string) {
			for _, name := range names {
				if r.header.Get(name) == "" {
					findings = append(findings, Finding{Fail, fmt.Sprintf("the header %s of a %s does not arrive", name, of), "check what is in between: [[headers]] and _headers of the site, an edge function, a proxy or a CDN"})
				}
			}
		}
		needed := []string{"ETag", "X-KV-Cache", "Server-Timing", "Access-Control-Allow-Origin", "Access-Control-Expose-Headers"}
		if p.in.supabaseAnswers(written, read) {
			lost("write", written, "X-KV-Version")
		}
		lost("read", read, needed...)
		if tag := read.header.Get("ETag"); tag != "" {
			again, err := p.get(ctx, map[string]string{"If-None-Match": tag})
			switch {
			case err != nil:
				return unreachable(err)
			case again.status != http.StatusNotModified:
				findings = append(findings, Finding{Fail, fmt.Sprintf("a read with the ETag of the previous one has status %d, not 304", again.status), "check whether a proxy changes ETag or If-None-Match: browsers load everything again"})
			}
		}
		if !strings.Contains(read.header.Get("Cache-Control"), "no-cache") {
			findings = append(findings, Finding{Fail, fmt.Sprintf("a read has Cache-Control: %q, but the functions sent no-cache", read.header.Get("Cache-Control")), "remove the header from [[headers]] and _headers of the site: browsers keep stale responses"})
		}
		if len(findings) == 0 {
			return ok("ETag, X-KV-*, Server-Timing and the headers for browsers arrive, and 304 works")
		}
		return findings
	})
}

// supabaseAnswers reports whether the site answers from Supabase: only then does a write's response have a version. If
// that header is lost, a read still shows whether there is a cache, which only Supabase has.
func (in *Input) supabaseAnswers(written, read *response) bool {
	return written.header.Get(versionHeader) != "" || read.header.Get("X-Kv-Cache-Stats") != ""
}

// maxNear is the longest wait for a database in the functions' region.
const maxNear = 30 * time.Millisecond

var databaseTime = regexp.MustCompile(`\bdb;dur=([0-9.]+)`)

func checkSiteDistance(ctx context.Context, in *Input) []Finding {
	const tries = 5
	shortest := time.Duration(-1)
	for range tries {
		got, err := in.ask(ctx, call{method: http.MethodGet, path: functionsPrefix + "kv-get?key=" + absentKey, token: in.readToken(), header: newest})
		switch {
		case err != nil:
			return unreachable(err)
		case got.status == http.StatusUnauthorized:
			return tokenNeeded(got)
		case got.status != http.StatusNotFound:
			return skip("not checked: kv-get answers with status %d", got.status)
		}
		if took, err := serverTime(got); err == nil && (shortest < 0 || took < shortest) {
			shortest = took
		}
	}
	switch {
	case shortest < 0:
		return skip("not checked: the responses have no Server-Timing")
	case shortest > maxNear:
		return warn(fmt.Sprintf("the functions wait %s for the store: it is in another region", shortest.Round(100*time.Microsecond)),
			"create the Supabase project in the functions' region, which is us-east-2 (Ohio) unless you chose another (Netlify: Cloud compute, Functions, Region)")
	}
	return ok("the functions wait %s for the store", shortest.Round(100*time.Microsecond))
}

// serverTime returns how long the function waited for its store.
func serverTime(r *response) (time.Duration, error) {
	found := databaseTime.FindStringSubmatch(r.header.Get("Server-Timing"))
	if found == nil {
		return 0, errors.New("no db in Server-Timing")
	}
	milliseconds, err := strconv.ParseFloat(found[1], 64)
	return time.Duration(milliseconds * float64(time.Millisecond)), err
}

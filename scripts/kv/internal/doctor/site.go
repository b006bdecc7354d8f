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

func (in *Input) ask(ctx context.Context, c call) (*answer, error) {
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

// apiToken is one that is good for everything, readToken one for reading; "" where the site has none that is known.
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

// said is the sentence of one of our functions' errors; "" of any other answer.
func (a *answer) said() string {
	var fields struct{ Error string }
	_ = json.Unmarshal(a.body, &fields)
	return fields.Error
}

const (
	deployAgain = "deploy this release to the site; run kv doctor without --site for what stands in the way"
	giveToken   = "set KV_API_TOKEN, as the site has it, where kv doctor runs"
)

// closed is the finding for a site that wants a token which is not known here.
func closed(a *answer) []Finding {
	return skip("not looked at: the site answers %d (%s); %s", a.status, a.said(), giveToken)
}

func unreachable(err error) []Finding {
	return fail("the site does not answer: "+lastWord(err), "look whether the address is right, and whether the site is up (Netlify: Deploys)")
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

// releaseHeader is where the functions say what they are.
const releaseHeader = "X-Kv-Release"

// onlyBlobs tells whether kv-query was asked where Netlify Blobs answers, which has no queries. It is no fault where that is meant.
func (in *Input) onlyBlobs(got *answer) bool {
	return !in.supabaseFirst() && got.status == http.StatusServiceUnavailable && strings.Contains(got.said(), "kv-query needs Supabase")
}

func (in *Input) judgeFunction(f function, address string, got *answer) []Finding {
	release := got.header.Get(releaseHeader)
	switch {
	case got.isPage() || !strings.HasPrefix(got.header.Get("Content-Type"), "application/json"):
		return fail(fmt.Sprintf("%s answers with a page (status %d), not with JSON", address, got.status), "look at the checks functions-directory and redirects: the function is not deployed, or another rule comes first")
	case release == "":
		return fail(fmt.Sprintf("%s is not answered by a function of this project, or by one before its first release", address), "remove the other function of that name, and "+deployAgain)
	case release != kv.Release:
		return fail(fmt.Sprintf("%s is of release %s, and this is the kv doctor of %s", address, release, kv.Release), deployAgain+"; or ask the kv doctor of that release")
	case got.status == http.StatusUnauthorized: // the business of checkSiteTokens
		return nil
	case got.status == http.StatusServiceUnavailable && f.optional: // no way to Blobs, on a site that does not use it
		return nil
	case in.onlyBlobs(got):
		return nil
	case got.status != f.status:
		return fail(fmt.Sprintf("%s answers with status %d: %s", address, got.status, got.said()), "do what the sentence says; the function's log has more (Netlify: Logs & Metrics, Functions)")
	}
	return nil
}

func checkSiteTokens(ctx context.Context, in *Input) (findings []Finding) {
	type expectation struct {
		token, says string
		reads, open bool
	}
	api, read := tokens(in.Getenv("KV_API_TOKEN")), tokens(in.Getenv("KV_READ_TOKEN"))
	if isHidden(in.Getenv("KV_API_TOKEN")) || isHidden(in.Getenv("KV_READ_TOKEN")) {
		return skip("not looked at: the tokens are hidden in the file; %s", giveToken)
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
		says := fmt.Sprintf("with token %d of KV_API_TOKEN", i+1)
		expect = append(expect, expectation{token, says, true, true}, expectation{token, says, false, true})
	}
	for i, token := range read {
		says := fmt.Sprintf("with token %d of KV_READ_TOKEN", i+1)
		expect = append(expect, expectation{token, says, true, true}, expectation{token, says, false, slices.Contains(api, token)})
	}
	for _, e := range expect {
		f, does := named("kv-upsert"), "a write"
		if e.reads {
			f, does = named("kv-list"), "a read"
		}
		got, err := in.ask(ctx, call{method: f.method, path: f.direct() + f.query, body: f.body, token: e.token})
		switch refused := got != nil && got.status == http.StatusUnauthorized; {
		case err != nil:
			return unreachable(err)
		case got.status != f.status && !refused:
			return skip("not looked at: %s answers with status %d", f.name, got.status)
		case refused && e.open:
			findings = append(findings, Finding{Fail, fmt.Sprintf("%s %s is refused: %s", does, e.says, got.said()), "give the site the same tokens as here (" + inNetlify + ")"})
		case !refused && !e.open:
			findings = append(findings, Finding{Fail, fmt.Sprintf("%s %s is let in", does, e.says), "set the tokens on the site too, in the scope Functions and for this deploy context (" + inNetlify + ")"})
		}
	}
	switch {
	case len(findings) > 0:
		return findings
	case !restricted:
		return siteIsOpen
	}
	return ok("%d tokens open what they should, and nothing else does", len(api)+len(read))
}

// siteIsOpen is for a site that wants no token.
var siteIsOpen = warn("the site has no token: everybody may read, write and delete", "set KV_API_TOKEN to the output of: openssl rand -hex 32 ("+inNetlify+")")

// guessTokens looks at a site whose variables are not known.
func (in *Input) guessTokens(ctx context.Context) []Finding {
	f := named("kv-upsert")
	got, err := in.ask(ctx, call{method: f.method, path: f.direct(), body: f.body})
	switch {
	case err != nil:
		return unreachable(err)
	case got.status == f.status:
		return siteIsOpen
	case got.status == http.StatusUnauthorized:
		return skip("the site wants a token; which are good is not known here (--env-file)")
	}
	return skip("not looked at: %s answers with status %d", f.name, got.status)
}

// probe is an entry of ours on the site, which is removed again.
type probe struct {
	in  *Input
	key string
}

// withProbe runs look with an entry that is written anew, and removes it whatever happens.
func (in *Input) withProbe(ctx context.Context, look func(ctx context.Context, p probe, written *answer) []Finding) (findings []Finding) {
	if in.ReadOnly {
		return skip("not looked at: it writes an entry, and --read-only is given")
	}
	p := probe{in, "kv-doctor/" + rand.Text()}
	written, err := p.write(ctx, 1)
	switch {
	case err == nil && written.status == http.StatusUnauthorized:
		return closed(written)
	case err == nil && written.status < http.StatusInternalServerError && written.status != http.StatusOK:
		return writeFails(written)
	}
	defer func() { findings = append(findings, p.cleanUp(ctx)...) }() // it may have been written in all other cases
	switch {
	case err != nil:
		return unreachable(err)
	case written.status != http.StatusOK:
		return writeFails(written)
	}
	return look(ctx, p, written)
}

func writeFails(a *answer) []Finding {
	return fail(fmt.Sprintf("a write fails with status %d: %s", a.status, a.said()), "do what the sentence says; the function's log has more (Netlify: Logs & Metrics, Functions)")
}

// cleanUp removes the entry, also when the time is over or somebody interrupts.
func (p probe) cleanUp(ctx context.Context) []Finding {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if got, err := p.remove(ctx); err != nil || got.status != http.StatusOK {
		return warn("the entry "+p.key+" may be left on the site", "delete it: curl -X DELETE '"+p.in.Site+"/.netlify/functions/kv-delete?key="+p.key+"'")
	}
	return nil
}

func (p probe) write(ctx context.Context, n int) (*answer, error) {
	return p.in.ask(ctx, call{method: http.MethodPost, path: functionsPrefix + "kv-upsert", body: fmt.Sprintf(`{"key":%q,"value":%s}`, p.key, value(n)), token: p.in.apiToken()})
}

func (p probe) remove(ctx context.Context) (*answer, error) {
	return p.in.ask(ctx, call{method: http.MethodPost, path: functionsPrefix + "kv-delete", body: fmt.Sprintf(`{"key":%q}`, p.key), token: p.in.apiToken()})
}

// get reads the entry; header may say how new it must be.
func (p probe) get(ctx context.Context, header map[string]string) (*answer, error) {
	return p.in.ask(ctx, call{method: http.MethodGet, path: functionsPrefix + "kv-get?key=" + url.QueryEscape(p.key), token: p.in.readToken(), header: header})
}

// value is what write wrote.
func value(n int) string { return fmt.Sprintf(`{"n":%d,"exact":1.0}`, n) }

// newest asks for an answer that memory has no part in.
var newest = map[string]string{"Cache-Control": "no-cache"}

func checkSiteWrite(ctx context.Context, in *Input) []Finding {
	return in.withProbe(ctx, func(ctx context.Context, p probe, _ *answer) []Finding {
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
				done = "written, read back, listed and deleted; Netlify Blobs answers, which has no queries"
				continue
			case got.status != http.StatusOK:
				return fail(fmt.Sprintf("what was written is not %s: status %d, %s", read.does, got.status, got.said()), "look whether all functions have the same variables and are of one deploy")
			case !strings.Contains(string(got.body), value(1)):
				return fail("what was written is not "+read.does+", byte for byte", "look whether all functions have the same variables and are of one deploy")
			}
		}
		if got, err := p.remove(ctx); err != nil {
			return unreachable(err)
		} else if !strings.Contains(string(got.body), `"deleted":true`) {
			return fail(fmt.Sprintf("what was written is not deleted: status %d, %s", got.status, got.said()), "look at the log of kv-delete (Netlify: Logs & Metrics, Functions)")
		}
		if got, err := p.get(ctx, newest); err != nil {
			return unreachable(err)
		} else if got.status != http.StatusNotFound {
			return fail(fmt.Sprintf("what was deleted is read with status %d", got.status), "look whether all functions have the same variables and are of one deploy")
		}
		return ok("%s", done)
	})
}

// versionHeader is part of every write's answer where Supabase answers.
const versionHeader = "X-Kv-Version"

// rounds is how often staleness is looked for: a site has several instances, each with a memory of its own.
const rounds = 8

func checkSiteStaleness(ctx context.Context, in *Input) []Finding {
	bound := in.MaxStale()
	return in.withProbe(ctx, func(ctx context.Context, p probe, _ *answer) []Finding {
		for range rounds { // into the memory of as many instances as come
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
				return fail("a read that names the version of a write (X-KV-After) does not see it", "look whether a proxy or the CDN keeps answers or drops the header X-KV-After")
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
				return fail(fmt.Sprintf("a read is older than %s (X-KV-Cache: %s, Age: %s)", bound, got.header.Get("X-Kv-Cache"), got.header.Get("Age")),
					"look whether a proxy or the CDN keeps answers: they say Cache-Control: no-cache; and whether KV_CACHE_MAX_STALE is the same here and there")
			}
		}
		return ok("no read was older than %s, and none older than a write whose version it named", bound)
	})
}

func checkSiteHeaders(ctx context.Context, in *Input) []Finding {
	return in.withProbe(ctx, func(ctx context.Context, p probe, written *answer) (findings []Finding) {
		read, err := p.get(ctx, nil)
		if err != nil {
			return unreachable(err)
		}
		lost := func(of string, a *answer, names ...string) {
			for _, name := range names {
				if a.header.Get(name) == "" {
					findings = append(findings, Finding{Fail, fmt.Sprintf("the header %s of a %s does not arrive", name, of), "look at what stands between: [[headers]] and _headers of the site, an edge function, a proxy or a CDN"})
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
				findings = append(findings, Finding{Fail, fmt.Sprintf("a read with the ETag of the one before is answered with status %d, not 304", again.status), "look whether a proxy changes ETag or If-None-Match: browsers load everything anew"})
			}
		}
		if !strings.Contains(read.header.Get("Cache-Control"), "no-cache") {
			findings = append(findings, Finding{Fail, fmt.Sprintf("a read says Cache-Control: %q, and the functions said no-cache", read.header.Get("Cache-Control")), "take the header out of [[headers]] and _headers of the site: browsers keep what is old"})
		}
		if len(findings) == 0 {
			return ok("ETag, X-KV-*, Server-Timing and those for browsers arrive, and 304 works")
		}
		return findings
	})
}

// supabaseAnswers tells whether the site answers from Supabase: only then does a write's answer have a version. Where that is lost, a
// read still says whether there is a cache, which Netlify Blobs has not.
func (in *Input) supabaseAnswers(written, read *answer) bool {
	return written.header.Get(versionHeader) != "" || read.header.Get("X-Kv-Cache-Stats") != ""
}

// near is how long the database may take if it is in the functions' region.
const near = 30 * time.Millisecond

var databaseTime = regexp.MustCompile(`\bdb;dur=([0-9.]+)`)

func checkSiteDistance(ctx context.Context, in *Input) []Finding {
	const tries = 5
	shortest := time.Duration(-1)
	for range tries {
		got, err := in.ask(ctx, call{method: http.MethodGet, path: functionsPrefix + "kv-get?key=" + nowhere, token: in.readToken(), header: newest})
		switch {
		case err != nil:
			return unreachable(err)
		case got.status == http.StatusUnauthorized:
			return closed(got)
		case got.status != http.StatusNotFound:
			return skip("not looked at: kv-get answers with status %d", got.status)
		}
		if took, err := serverTime(got); err == nil && (shortest < 0 || took < shortest) {
			shortest = took
		}
	}
	switch {
	case shortest < 0:
		return skip("the answers do not say (Server-Timing)")
	case shortest > near:
		return warn(fmt.Sprintf("the functions wait %s for the store: it is in another region", shortest.Round(100*time.Microsecond)),
			"make the Supabase project where the functions run, which is us-east-2 (Ohio) unless the plan says otherwise (Netlify: Cloud compute, Functions, Region)")
	}
	return ok("the functions wait %s for the store", shortest.Round(100*time.Microsecond))
}

// serverTime is how long the function waited for its store.
func serverTime(a *answer) (time.Duration, error) {
	found := databaseTime.FindStringSubmatch(a.header.Get("Server-Timing"))
	if found == nil {
		return 0, errors.New("no db in Server-Timing")
	}
	milliseconds, err := strconv.ParseFloat(found[1], 64)
	return time.Duration(milliseconds * float64(time.Millisecond)), err
}

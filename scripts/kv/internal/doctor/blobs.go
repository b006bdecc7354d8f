package doctor

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"netlify-supabase-kv/pkg/blobs"
)

// blobsResult is the result of listing an absent key through Netlify's API.
type blobsResult struct {
	skipped  []Finding // why no request was made; nil if one was
	response *response
	err      error
}

const (
	rightToken  = "make a personal access token (Netlify: User settings, Applications, Personal access tokens) and set NETLIFY_BLOBS_TOKEN to it"
	rightSiteID = "set NETLIFY_SITE_ID to the site's id (Netlify: Project configuration, General, Project ID)"
)

func (in *Input) askBlobs(ctx context.Context) *blobsResult {
	token, site := in.text("NETLIFY_BLOBS_TOKEN"), in.siteID()
	switch {
	case in.knowsNothing():
		return &blobsResult{skipped: unknown}
	case !in.usesBlobs():
		return &blobsResult{skipped: skip("Netlify Blobs is not used: only Supabase answers")}
	case token == "":
		return &blobsResult{skipped: fail("Netlify Blobs is used, but NETLIFY_BLOBS_TOKEN is not set: Go functions need it to reach Blobs", rightToken)}
	case isHidden(token):
		return &blobsResult{skipped: skip("not checked: NETLIFY_BLOBS_TOKEN is hidden in the file; set it there by hand")}
	case malformed(token) != "":
		return &blobsResult{skipped: fail("NETLIFY_BLOBS_TOKEN "+malformed(token), rightToken)}
	case site == "":
		return &blobsResult{skipped: skip("not checked: NETLIFY_SITE_ID is not set here; a deployed function knows its site")}
	case malformed(site) != "":
		return &blobsResult{skipped: fail("NETLIFY_SITE_ID "+malformed(site), rightSiteID)}
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout-time.Second)
	defer cancel()
	api := strings.TrimRight(cmp.Or(in.text("NETLIFY_BLOBS_API_URL"), blobs.DefaultAPIURL), "/")
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, api+"/api/v1/blobs/"+url.PathEscape(site)+"/site:kv?prefix="+url.QueryEscape(absentKey), nil)
	if err != nil {
		return &blobsResult{skipped: fail("NETLIFY_BLOBS_API_URL is not an address", "remove it, or set it to "+blobs.DefaultAPIURL)}
	}
	r.Header.Set("Authorization", "Bearer "+token)
	got, err := in.do(r)
	return &blobsResult{response: got, err: err}
}

// siteID returns the site's ID from the functions' variables or, failing that, from a folder linked with netlify link.
func (in *Input) siteID() string {
	var linked struct {
		SiteID string `json:"siteId"`
	}
	if text, err := os.ReadFile(filepath.Join(in.Dir, ".netlify", "state.json")); err == nil {
		_ = json.Unmarshal(text, &linked) // the file belongs to the Netlify CLI; an unreadable one counts as absent
	}
	return cmp.Or(in.text("NETLIFY_SITE_ID"), in.text("SITE_ID"), linked.SiteID)
}

func checkBlobs(_ context.Context, in *Input) []Finding {
	b := in.blobs()
	switch {
	case b.skipped != nil:
		return b.skipped
	case b.err != nil:
		return fail("Netlify's API does not answer: "+rootCause(b.err), "check whether this network allows outgoing requests, and see www.netlifystatus.com")
	}
	switch status := b.response.status; {
	case status == http.StatusOK && !b.response.isPage(), status == http.StatusTooManyRequests:
		return ok("Netlify Blobs accepts the token for the site")
	case status == http.StatusUnauthorized:
		return fail("Netlify refuses the token (status 401)", rightToken)
	case status == http.StatusForbidden, status == http.StatusNotFound:
		return fail(fmt.Sprintf("Netlify has no such site for this token (status %d)", status), rightSiteID+", and use a token of a user with access to the site")
	default:
		return fail(fmt.Sprintf("Netlify's API fails (status %d)", status), "see www.netlifystatus.com, and run kv doctor again")
	}
}

// lowShare is the share of the request limit below which the check warns: something else uses the limit up.
const lowShare = 0.2

func checkBlobsRate(_ context.Context, in *Input) []Finding {
	b := in.blobs()
	switch {
	case b.skipped != nil:
		return skip("not checked: see blobs")
	case b.err != nil:
		return skip("not checked: see blobs")
	case b.response.status == http.StatusTooManyRequests:
		return fail("no requests are left in this minute: the API refuses them (status 429)", spread)
	}
	limit, err1 := strconv.Atoi(b.response.header.Get("X-Ratelimit-Limit"))
	left, err2 := strconv.Atoi(b.response.header.Get("X-Ratelimit-Remaining"))
	switch {
	case err1 != nil || err2 != nil || limit <= 0:
		return skip("not checked: the API does not report how many requests are left; a token allows 500 a minute")
	case float64(left) < lowShare*float64(limit):
		return warn(fmt.Sprintf("%d of %d requests a minute are left", left, limit), spread)
	}
	return ok("%d of %d requests a minute are left", left, limit)
}

const spread = "wait a minute. If that does not help, give each user of the API a separate token, and stop other users while a migration runs: docs/MIGRATION.md"

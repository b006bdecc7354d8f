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

// blobsAnswer is what Netlify's API answered to a list of nothing.
type blobsAnswer struct {
	unasked []Finding // why it was not asked
	answer  *answer
	err     error
}

const (
	rightToken  = "make a personal access token (Netlify: User settings, Applications, Personal access tokens) and set NETLIFY_BLOBS_TOKEN to it"
	rightSiteID = "set NETLIFY_SITE_ID to the site's id (Netlify: Project configuration, General, Project ID)"
)

func (in *Input) askBlobs(ctx context.Context) *blobsAnswer {
	token, site := in.text("NETLIFY_BLOBS_TOKEN"), in.siteID()
	switch {
	case in.knowsNothing():
		return &blobsAnswer{unasked: unknown}
	case !in.usesBlobs():
		return &blobsAnswer{unasked: skip("Netlify Blobs is not used: Supabase answers alone")}
	case token == "":
		return &blobsAnswer{unasked: fail("Netlify Blobs is used, and NETLIFY_BLOBS_TOKEN is not set: Netlify gives Go functions no other way to it", rightToken)}
	case isHidden(token):
		return &blobsAnswer{unasked: skip("NETLIFY_BLOBS_TOKEN is hidden in the file: set it there by hand")}
	case spoilt(token) != "":
		return &blobsAnswer{unasked: fail("NETLIFY_BLOBS_TOKEN "+spoilt(token), rightToken)}
	case site == "":
		return &blobsAnswer{unasked: skip("the token is not tried: which site it is for, a deployed function knows, and here NETLIFY_SITE_ID must say")}
	case spoilt(site) != "":
		return &blobsAnswer{unasked: fail("NETLIFY_SITE_ID "+spoilt(site), rightSiteID)}
	}
	ctx, cancel := context.WithTimeout(ctx, patience-time.Second)
	defer cancel()
	api := strings.TrimRight(cmp.Or(in.text("NETLIFY_BLOBS_API_URL"), blobs.DefaultAPIURL), "/")
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, api+"/api/v1/blobs/"+url.PathEscape(site)+"/site:kv?prefix="+url.QueryEscape(nowhere), nil)
	if err != nil {
		return &blobsAnswer{unasked: fail("NETLIFY_BLOBS_API_URL is not an address", "remove it, or set it to "+blobs.DefaultAPIURL)}
	}
	r.Header.Set("Authorization", "Bearer "+token)
	got, err := in.do(r)
	return &blobsAnswer{answer: got, err: err}
}

// siteID is the one that the functions take, or that of the folder if it is linked to a site (netlify link).
func (in *Input) siteID() string {
	var linked struct {
		SiteID string `json:"siteId"`
	}
	if text, err := os.ReadFile(filepath.Join(in.Dir, ".netlify", "state.json")); err == nil {
		_ = json.Unmarshal(text, &linked) // it is the CLI's; what cannot be read says nothing
	}
	return cmp.Or(in.text("NETLIFY_SITE_ID"), in.text("SITE_ID"), linked.SiteID)
}

func checkBlobs(_ context.Context, in *Input) []Finding {
	b := in.blobs()
	switch {
	case b.unasked != nil:
		return b.unasked
	case b.err != nil:
		return fail("Netlify's API does not answer: "+lastWord(b.err), "look whether this network lets requests out, and at www.netlifystatus.com")
	}
	switch status := b.answer.status; {
	case status == http.StatusOK && !b.answer.isPage(), status == http.StatusTooManyRequests:
		return ok("Netlify Blobs takes the token for the site")
	case status == http.StatusUnauthorized:
		return fail("Netlify refuses the token (status 401)", rightToken)
	case status == http.StatusForbidden, status == http.StatusNotFound:
		return fail(fmt.Sprintf("Netlify has no such site for this token (status %d)", status), rightSiteID+", and take a token of somebody who may see the site")
	default:
		return fail(fmt.Sprintf("Netlify's API fails (status %d)", status), "look at www.netlifystatus.com, and run this again")
	}
}

// littleLeft is the share of the rate below which somebody else uses it up.
const littleLeft = 0.2

func checkBlobsRate(_ context.Context, in *Input) []Finding {
	b := in.blobs()
	switch {
	case b.unasked != nil:
		return skip("not looked at: see blobs")
	case b.err != nil:
		return skip("not looked at: see blobs")
	case b.answer.status == http.StatusTooManyRequests:
		return fail("nothing is left of the rate: requests are turned down (status 429)", spread)
	}
	limit, err1 := strconv.Atoi(b.answer.header.Get("X-Ratelimit-Limit"))
	left, err2 := strconv.Atoi(b.answer.header.Get("X-Ratelimit-Remaining"))
	switch {
	case err1 != nil || err2 != nil || limit <= 0:
		return skip("the API does not say how much is left; it allows 500 requests a minute for a token")
	case float64(left) < littleLeft*float64(limit):
		return warn(fmt.Sprintf("%d of %d requests a minute are left", left, limit), spread)
	}
	return ok("%d of %d requests a minute are left", left, limit)
}

const spread = "wait a minute; if it stays so, give each user of the API a token of its own, and let nothing else ask while a migration runs: docs/MIGRATION.md"

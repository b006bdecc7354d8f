package blobs

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
)

// DefaultAPIURL is the address of Netlify's API.
const DefaultAPIURL = "https://api.netlify.com"

// Access leads to the blobs of a site: through the edge (from a function's event) or through the API (with a token).
type Access struct {
	SiteID string

	EdgeURL, EdgeToken string // the event's url_uncached and token; if both are set, the edge is used

	APIURL   string // default: [DefaultAPIURL]
	APIToken string // a personal access token, or another with access to the site
}

// Usable reports whether there is a site and one of the two ways to it.
func (a Access) Usable() bool { return a.SiteID != "" && (a.edge() || a.APIToken != "") }

func (a Access) edge() bool { return a.EdgeURL != "" && a.EdgeToken != "" }

// Limited reports whether the API is Netlify's, which limits requests; a local server does not.
func (a Access) Limited() bool {
	u, err := url.Parse(cmp.Or(a.APIURL, DefaultAPIURL))
	return err == nil && strings.HasSuffix("."+u.Hostname(), ".netlify.com")
}

// AccessFromEvent reads the blobs field of a function's event, which is base64 of {"url","url_uncached","token"}.
// siteID is the event's header x-nf-site-id. The field's primary_region is for the stores of deploys (getStore in
// @netlify/blobs), and is not used here.
func AccessFromEvent(field, siteID string) (Access, error) {
	switch {
	case field == "":
		return Access{}, errors.New("the event has no blobs field")
	case siteID == "":
		return Access{}, errors.New("the event has no x-nf-site-id header")
	}
	text, err := decodeBase64(field)
	if err != nil {
		return Access{}, fmt.Errorf("the event's blobs field is not base64: %w", err)
	}
	var event struct {
		URL         string
		URLUncached string `json:"url_uncached"`
		Token       string
	}
	if json.Unmarshal(text, &event) != nil { // the error might quote the token
		return Access{}, errors.New("the event's blobs field is not a JSON object of strings")
	}
	a := Access{SiteID: siteID, EdgeURL: cmp.Or(event.URLUncached, event.URL), EdgeToken: event.Token}
	if !a.edge() {
		return Access{}, errors.New("the event's blobs field has no address or no token")
	}
	return a, nil
}

// decodeBase64 accepts both alphabets, with padding or without, like JavaScript's Buffer.
func decodeBase64(text string) ([]byte, error) {
	text = strings.NewReplacer("-", "+", "_", "/").Replace(strings.TrimRight(text, "="))
	return base64.RawStdEncoding.DecodeString(text)
}

type accessKey struct{}

// contextAccess is the access that a context carries.
type contextAccess struct {
	access  func() Access
	siteID  string
	refused atomic.Bool // by the edge
}

// WithEvent returns a context for requests with the access of [AccessFromEvent], which is decoded when it is first needed;
// with Supabase it never is. If it is not usable, or its token is refused, requests use the client's default, for the
// site siteID if that names none.
func WithEvent(ctx context.Context, field, siteID string) context.Context {
	return context.WithValue(ctx, accessKey{}, &contextAccess{siteID: siteID, access: sync.OnceValue(func() Access {
		a, _ := AccessFromEvent(field, siteID) // with an error it is not usable
		return a
	})})
}

// access returns the access for a request under ctx, and the context's part that it is from; nil if it is the
// client's own. Without any it returns [ErrNoAccess].
func (c *Client) access(ctx context.Context) (Access, *contextAccess, error) {
	if from, ok := ctx.Value(accessKey{}).(*contextAccess); ok && !from.refused.Load() && from.access().Usable() {
		return from.access(), from, nil
	}
	a := c.own(ctx)
	if !a.Usable() {
		return a, nil, ErrNoAccess
	}
	return a, nil, nil
}

// own returns the client's default, with the context's site if it names none.
func (c *Client) own(ctx context.Context) Access {
	a := c.fallback
	if from, ok := ctx.Value(accessKey{}).(*contextAccess); ok {
		a.SiteID = cmp.Or(a.SiteID, from.siteID)
	}
	return a
}

// validHeaderText reports whether a header can hold the text. The transport's error would look like a lost connection.
func validHeaderText(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// token returns the token for the service.
func (a Access) token() string {
	if a.edge() {
		return a.EdgeToken
	}
	return a.APIToken
}

// address returns the address of a blob, or of the store if key is "".
func (a Access) address(store, key string, query url.Values) (*url.URL, error) {
	base, prefix := cmp.Or(a.APIURL, DefaultAPIURL), "/api/v1/blobs"
	if a.edge() {
		base, prefix = a.EdgeURL, ""
	}
	u, err := parseAddress(base)
	if err != nil {
		return nil, err
	}
	raw := prefix + "/" + url.PathEscape(a.SiteID) + "/" + escape(store)
	if key != "" {
		raw += "/" + escape(key)
	}
	if u, err = u.Parse(raw); err != nil {
		return nil, errors.New("the address of the blob cannot be put together")
	}
	u.RawQuery = query.Encode()
	return u, nil
}

// parseAddress parses an address from outside. Its error does not quote it, since a signed URL is a secret.
func parseAddress(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("the address of Blobs is not one of http or https")
	}
	return u, nil
}

package blobs

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs/blobstest"
)

func TestAccessFromEvent(t *testing.T) {
	t.Parallel()
	encode := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	whole := `{"url":"https://cached","url_uncached":"https://fresh","token":"t>?~","primary_region":"us-east-1"}`
	want := Access{SiteID: "site", EdgeURL: "https://fresh", EdgeToken: "t>?~"}
	for name, tt := range map[string]struct {
		field, site string
		want        Access
		err         string
	}{
		"OK":            {encode(whole), "site", want, ""},
		"NoPadding":     {strings.TrimRight(encode(whole), "="), "site", want, ""},
		"URLAlphabet":   {base64.RawURLEncoding.EncodeToString([]byte(whole)), "site", want, ""},
		"OnlyCached":    {encode(`{"url":"https://cached","token":"t"}`), "site", Access{SiteID: "site", EdgeURL: "https://cached", EdgeToken: "t"}, ""},
		"ErrNoField":    {"", "site", Access{}, "the event has no blobs field"},
		"ErrNoSite":     {encode(whole), "", Access{}, "the event has no x-nf-site-id header"},
		"ErrNotBase64":  {"{}", "site", Access{}, "the event's blobs field is not base64: illegal base64 data at input byte 0"},
		"ErrNotJSON":    {encode("secret"), "site", Access{}, "the event's blobs field is not a JSON object of strings"},
		"ErrNotStrings": {encode(`{"url":1}`), "site", Access{}, "the event's blobs field is not a JSON object of strings"},
		"ErrNoToken":    {encode(`{"url":"https://cached"}`), "site", Access{}, "the event's blobs field has no address or no token"},
		"ErrNoAddress":  {encode(`{"token":"t"}`), "site", Access{}, "the event's blobs field has no address or no token"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := AccessFromEvent(tt.field, tt.site)
			require.Equal(t, tt.want, got)
			if tt.err == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, tt.err)
			}
		})
	}
}

func TestUsable(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		a    Access
		want bool
	}{
		"Edge":           {Access{SiteID: "s", EdgeURL: "https://e", EdgeToken: "t"}, true},
		"API":            {Access{SiteID: "s", APIToken: "t"}, true},
		"NoSite":         {Access{EdgeURL: "https://e", EdgeToken: "t", APIToken: "t"}, false},
		"EdgeNoToken":    {Access{SiteID: "s", EdgeURL: "https://e"}, false},
		"EdgeNoAddress":  {Access{SiteID: "s", EdgeToken: "t"}, false},
		"HalfEdgeAndAPI": {Access{SiteID: "s", EdgeURL: "https://e", APIToken: "t"}, true},
		"Nothing":        {Access{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, tt.want, tt.a.Usable())
		})
	}
}

func TestContextAccessOverridesDefault(t *testing.T) {
	t.Parallel()
	here, there := newStandIn(t, blobstest.Options{}), newStandIn(t, blobstest.Options{})
	bare := NewClient("kv")
	c := bare.WithDefault(here.edge(t))
	_, err := c.Set(t.Context(), "a", []byte("here"), SetOptions{})
	require.NoError(t, err)
	_, err = bare.Set(withAccess(t.Context(), there.api()), "a", []byte("there"), SetOptions{})
	require.NoError(t, err)

	for name, tt := range map[string]struct {
		ctx  context.Context
		want string
	}{
		"Default":  {t.Context(), "here"},
		"Context":  {withAccess(t.Context(), there.edge(t)), "there"},
		"Unusable": {withAccess(t.Context(), Access{SiteID: "s"}), "here"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := c.Get(tt.ctx, "a")
			require.NoError(t, err)
			require.Equal(t, tt.want, string(got.Value))
		})
	}

	_, err = bare.Get(t.Context(), "a") // WithDefault did not change it
	require.ErrorIs(t, err, ErrNoAccess)
	require.ErrorContains(t, err, "set NETLIFY_BLOBS_TOKEN and NETLIFY_SITE_ID")
	for _, err := range bare.List(t.Context(), "") {
		require.ErrorIs(t, err, ErrNoAccess)
	}
}

func TestUnusableAccessFailsAtOnce(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		a    Access
		want string
	}{
		"LineBreakInToken": {Access{SiteID: "s", APIToken: "secret\n"}, "the token for Blobs has a space, a line break or another character that no token has"},
		"NoScheme":         {Access{SiteID: "s", EdgeURL: "secret.example", EdgeToken: "t"}, "the address of Blobs is not one of http or https"},
		"NoHost":           {Access{SiteID: "s", APIURL: "https:///x", APIToken: "t"}, "the address of Blobs is not one of http or https"},
		"NoAddress":        {Access{SiteID: "s", APIURL: "://\n", APIToken: "t"}, "the address of Blobs is not one of http or https"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := clientOf(tt.a).Get(t.Context(), "a")
			require.EqualError(t, err, tt.want)
		})
	}
}

// TestAddresses pins the requests, which are those of @netlify/blobs.
func TestAddresses(t *testing.T) {
	t.Parallel()
	const key = "a b/it's [1]é:@;x=+&"
	const path = "a%20b/it's%20[1]%C3%A9:@;x=+&"
	edge := Access{SiteID: "s", EdgeURL: "https://e.example/ignored", EdgeToken: "t", APIToken: "t"}
	api := Access{SiteID: "s", APIToken: "t"}
	for name, tt := range map[string]struct {
		a         Access
		key, want string
	}{
		"Edge":     {edge, key, "https://e.example/s/site:kv/" + path},
		"EdgeList": {edge, "", "https://e.example/s/site:kv?prefix=a+b"},
		"API":      {api, key, "https://api.netlify.com/api/v1/blobs/s/site:kv/" + path},
		"APIList":  {api, "", "https://api.netlify.com/api/v1/blobs/s/site:kv?prefix=a+b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			query := map[string][]string{}
			if tt.key == "" {
				query["prefix"] = []string{"a b"}
			}
			u, err := tt.a.address("site:kv", tt.key, query)
			require.NoError(t, err)
			require.Equal(t, tt.want, u.String())
		})
	}
}

func TestValuesUseSignedURLsWithoutTheToken(t *testing.T) {
	t.Parallel()
	s := newStandIn(t, blobstest.Options{})
	var mu sync.Mutex
	var seen []string
	s.seen = func(r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		kind := strings.Split(r.URL.Path, "/")[1]
		if r.Header.Get("Authorization") == "Bearer "+s.access.APIToken {
			kind += " token"
		}
		if accept := r.Header.Get("Accept"); accept != "" {
			kind += " " + accept
		}
		for _, name := range []string{"X-Amz-Meta-User", "Netlify-Blobs-Metadata", "Cache-Control", "If-None-Match"} {
			if r.Header.Get(name) != "" {
				kind += " " + name
			}
		}
		seen = append(seen, r.Method+" "+kind)
	}
	c := clientOf(s.api())
	_, err := c.Set(t.Context(), "a", []byte("1"), SetOptions{Metadata: "{}", IfNew: true})
	require.NoError(t, err)
	_, err = c.Get(t.Context(), "a")
	require.NoError(t, err)
	_, err = c.Head(t.Context(), "a")
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, keys(t, c, ""))
	require.NoError(t, c.Delete(t.Context(), "a"))
	require.Equal(t, []string{
		"PUT api token application/json;type=signed-url Netlify-Blobs-Metadata",
		"PUT _signed X-Amz-Meta-User Cache-Control If-None-Match",
		"GET api token application/json;type=signed-url",
		"GET _signed",
		"HEAD api token",
		"GET api token",
		"DELETE api token",
	}, seen)
}

func TestWrongTokenIsNotInTheError(t *testing.T) {
	t.Parallel()
	eachWay(t, blobstest.Options{}, func(t *testing.T, _ *standIn, c *Client) {
		c.fallback.APIToken, c.fallback.EdgeToken = token, map[bool]string{true: token}[c.fallback.edge()]
		_, err := c.Set(t.Context(), "a", []byte("the value"), SetOptions{})
		require.Equal(t, &Error{Op: "set", Status: 401, Message: "the token is missing or wrong"}, err)
		require.NotContains(t, err.Error(), token)
	})
}

// withAccess returns a context for requests with the access.
func withAccess(ctx context.Context, a Access) context.Context {
	return context.WithValue(ctx, accessKey{}, &contextAccess{access: func() Access { return a }, siteID: a.SiteID})
}

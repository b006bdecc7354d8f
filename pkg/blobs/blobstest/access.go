package blobstest

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

const primaryRegion = "us-east-1"

// regions are those of @netlify/blobs, which sends auto by default.
var regions = map[string]bool{
	"us-east-1": true, "us-east-2": true, "eu-central-1": true, "ap-southeast-1": true, "ap-southeast-2": true, "auto": true,
}

// secrets are made at the first Open and kept in access.json, so that addresses handed out before a restart go on
// working.
type secrets struct {
	SiteID     string `json:"site_id"`
	EventToken string `json:"event_token"`
	APIToken   string `json:"api_token"`
	SigningKey string `json:"signing_key"`
}

func loadSecrets(dir string) (s secrets, err error) {
	name := filepath.Join(dir, "access.json")
	text, err := os.ReadFile(name) // #nosec G304 -- in the folder that the tests or the platform made for this
	if err == nil {
		return s, json.Unmarshal(text, &s)
	} else if !errors.Is(err, os.ErrNotExist) {
		return s, err
	}
	s = secrets{uuid.NewString(), "local-event-" + rand.Text(), "local-api-" + rand.Text(), rand.Text()}
	if text, err = json.MarshalIndent(s, "", "  "); err != nil { // #nosec G117 -- made up for a local server, in a file that is 0600
		return s, err
	}
	if err := os.WriteFile(name+".new", append(text, '\n'), 0o600); err != nil {
		return s, err
	}
	return s, os.Rename(name+".new", name)
}

// Access is what a client needs.
type Access struct {
	SiteID     string // the header x-nf-site-id of a function's event, and NETLIFY_SITE_ID of a script
	Event      string // the event's blobs field: base64 of {"url","url_uncached","token","primary_region"}
	EventToken string // the token inside Event, for the edge address
	APIURL     string // what stands in for https://api.netlify.com
	APIToken   string // what stands in for a personal access token, for the API
}

// Access returns the access to the server under an address such as http://127.0.0.1:8890.
func (s *Server) Access(baseURL string) Access {
	baseURL = strings.TrimRight(baseURL, "/")
	event, err := json.Marshal(map[string]string{
		"url": baseURL, "url_uncached": baseURL, "token": s.secrets.EventToken, "primary_region": primaryRegion,
	})
	if err != nil {
		panic(err) // strings always encode
	}
	return Access{
		SiteID:     s.secrets.SiteID,
		Event:      base64.StdEncoding.EncodeToString(event),
		EventToken: s.secrets.EventToken,
		APIURL:     baseURL,
		APIToken:   s.secrets.APIToken,
	}
}

// authorized reports whether r carries the token as a bearer token.
func authorized(r *http.Request, token string) bool {
	scheme, got, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.EqualFold(scheme, "bearer") && subtle.ConstantTimeCompare([]byte(got), []byte(token)) == 1
}

// signedURL returns an address for one method on one blob, without a token, until it expires.
func (s *Server) signedURL(r *http.Request, expires time.Time) string {
	path := signedPrefix + strings.TrimPrefix(r.URL.EscapedPath(), apiPrefix)
	ms := strconv.FormatInt(expires.UnixMilli(), 10)
	return "http://" + r.Host + path + "?expires=" + ms + "&signature=" + s.signature(r.Method, path, ms)
}

func (s *Server) signature(method, path, expires string) string {
	mac := hmac.New(sha256.New, []byte(s.secrets.SigningKey))
	mac.Write([]byte(method + " " + path + " " + expires)) // none of them can hold a space
	return hex.EncodeToString(mac.Sum(nil))
}

// signatureHolds reports whether a request to a signed address is valid.
func (s *Server) signatureHolds(r *http.Request, q url.Values) bool {
	ms, err := strconv.ParseInt(q.Get("expires"), 10, 64)
	want := s.signature(r.Method, r.URL.EscapedPath(), q.Get("expires"))
	return err == nil && s.opt.Now().Before(time.UnixMilli(ms)) && hmac.Equal([]byte(want), []byte(q.Get("signature")))
}

package host

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode/utf8"
)

// event is what Netlify passes to a function: the payload of API Gateway, version 1, with a few additional fields.
type event struct {
	Resource                        string              `json:"resource"`
	Path                            string              `json:"path"`
	HTTPMethod                      string              `json:"httpMethod"`
	Headers                         map[string]string   `json:"headers"`
	MultiValueHeaders               map[string][]string `json:"multiValueHeaders"`
	QueryStringParameters           map[string]string   `json:"queryStringParameters"`
	MultiValueQueryStringParameters map[string][]string `json:"multiValueQueryStringParameters"`
	Body                            *string             `json:"body"`
	IsBase64Encoded                 bool                `json:"isBase64Encoded"`
	RawURL                          string              `json:"rawUrl"`
	RawQuery                        string              `json:"rawQuery"`
	Blobs                           string              `json:"blobs,omitempty"`
	RequestContext                  struct{}            `json:"requestContext"`
}

// Site describes the site in events.
type Site struct {
	ID      string // x-nf-site-id
	Context string // x-nf-deploy-context
	Blobs   string // the blobs field; empty when the site has no Blobs
}

// newEvent turns a request into an event. The path is the encoded one that the client sent, even after a rewrite.
func newEvent(r *http.Request, body []byte, site Site, requestID string) event {
	query := parseQuery(r.URL.RawQuery)
	headers := eventHeaders(r, site, requestID)
	e := event{
		Path:                            r.URL.EscapedPath(),
		HTTPMethod:                      r.Method,
		MultiValueHeaders:               headers,
		Headers:                         joined(headers),
		MultiValueQueryStringParameters: query,
		QueryStringParameters:           joined(query),
		RawQuery:                        r.URL.RawQuery,
		Blobs:                           site.Blobs,
	}
	e.RawURL = "http://" + r.Host + e.Path
	if r.URL.RawQuery != "" {
		e.RawURL += "?" + r.URL.RawQuery
	}
	e.Body, e.IsBase64Encoded = eventBody(r, body)
	return e
}

// marshal encodes the event without Go's HTML escapes, which would count against the size limit.
func (e event) marshal() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(e)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// eventHeaders lower-cases names and adds Netlify's headers.
func eventHeaders(r *http.Request, site Site, requestID string) map[string][]string {
	headers := map[string][]string{}
	for name, values := range r.Header {
		headers[strings.ToLower(name)] = repaired(values)
	}
	client, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		client = r.RemoteAddr
	}
	headers["x-forwarded-for"] = []string{strings.Join(append(headers["x-forwarded-for"], client), ", ")}
	for name, value := range map[string]string{
		"host":                      r.Host,
		"client-ip":                 client,
		"x-nf-client-connection-ip": client,
		"x-nf-request-id":           requestID,
		"x-nf-site-id":              site.ID,
		"x-nf-deploy-context":       site.Context,
		"x-nf-account-id":           "",
		"x-forwarded-proto":         "http",
	} {
		headers[name] = []string{value}
	}
	return headers
}

// joined returns the single-value form of Netlify's events: all values, joined.
func joined(values map[string][]string) map[string]string {
	out := make(map[string]string, len(values))
	for name, list := range values {
		out[name] = strings.Join(list, ", ")
	}
	return out
}

// parseQuery reads a query as browsers do: text that cannot be decoded is left unchanged.
func parseQuery(raw string) map[string][]string {
	values := map[string][]string{}
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name = decode(name)
		values[name] = append(values[name], decode(value))
	}
	return values
}

func decode(s string) string {
	s = strings.ReplaceAll(s, "+", " ")
	if decoded, err := url.PathUnescape(s); err == nil {
		return repair(decoded)
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if b, err := url.PathUnescape(s[i : i+3]); err == nil {
				out.WriteString(b)
				i += 2
				continue
			}
		}
		out.WriteByte(s[i])
	}
	return repair(out.String())
}

// eventBody returns the body as text or as base64, depending on the content type. An empty body is null, and marked as
// base64 unless the type is text: that is odd, but what Netlify does.
func eventBody(r *http.Request, body []byte) (*string, bool) {
	binary := !isText(r.Header.Get("Content-Type"))
	if len(body) == 0 {
		return nil, binary
	}
	var text string
	if binary {
		text = base64.StdEncoding.EncodeToString(body)
	} else {
		text = repair(string(bytes.TrimPrefix(body, []byte("\xef\xbb\xbf"))))
	}
	return &text, binary
}

// textTypes are the types besides text/*, *+json and *+xml that Netlify treats as text (shouldBase64Encode in
// @netlify/dev-utils).
var textTypes = map[string]bool{
	"application/csp-report":            true,
	"application/graphql":               true,
	"application/json":                  true,
	"application/javascript":            true,
	"application/x-www-form-urlencoded": true,
	"application/x-ndjson":              true,
	"application/xml":                   true,
}

func isText(contentType string) bool {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		kind, _, _ = strings.Cut(contentType, ";")
		kind = strings.ToLower(strings.TrimSpace(kind))
	}
	return strings.HasPrefix(kind, "text/") || strings.HasSuffix(kind, "+json") || strings.HasSuffix(kind, "+xml") || textTypes[kind]
}

func repaired(values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = repair(v)
	}
	return out
}

// repair replaces every byte that is not UTF-8 by U+FFFD, as JavaScript does.
func repair(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

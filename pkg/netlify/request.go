package netlify

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"netlify-supabase-kv/pkg/kv"
)

// Request is an event that Netlify invokes a function with: API Gateway's (version 1) with rawUrl and blobs added.
// Fields that no function reads are left out.
type Request struct {
	HTTPMethod                      string              `json:"httpMethod"`
	Path                            string              `json:"path"`
	Headers                         Headers             `json:"headers"`
	QueryStringParameters           map[string]string   `json:"queryStringParameters"`
	MultiValueQueryStringParameters map[string][]string `json:"multiValueQueryStringParameters"`
	Body                            string              `json:"body"`
	IsBase64Encoded                 bool                `json:"isBase64Encoded"`
	// RawURL is the address that the browser asked for. After a rewrite it differs from the function's own address.
	RawURL string `json:"rawUrl"`
	// Blobs is base64 of how to reach Netlify Blobs; "" when Netlify does not give the function access.
	Blobs string `json:"blobs"`

	now  func() time.Time // the handler's clock
	head bool             // the method was HEAD; HTTPMethod is GET then
}

// Headers are the request headers that functions read, in any case. Netlify sets the last two itself, in lower case.
// A request has some twenty more, and decoding them would take longer than an answer from memory.
type Headers struct {
	Accept         string `json:"accept,case:ignore"`
	Authorization  string `json:"authorization,case:ignore"`
	BlobsMetadata  string `json:"x-amz-meta-user,case:ignore"`
	CacheControl   string `json:"cache-control,case:ignore"`
	ContentType    string `json:"content-type,case:ignore"`
	IdempotencyKey string `json:"idempotency-key,case:ignore"`
	IfMatch        string `json:"if-match,case:ignore"`
	IfNoneMatch    string `json:"if-none-match,case:ignore"`
	KVAfter        string `json:"x-kv-after,case:ignore"`
	KVCache        string `json:"x-kv-cache,case:ignore"`
	KVExpires      string `json:"x-kv-expires,case:ignore"`
	KVMetadata     string `json:"x-kv-metadata,case:ignore"`
	KVTTL          string `json:"x-kv-ttl,case:ignore"`
	TTL            string `json:"x-ttl,case:ignore"`
	RequestID      string `json:"x-nf-request-id"`
	SiteID         string `json:"x-nf-site-id"`
}

// legacyJSON accepts what encoding/json accepts and jsonv2 does not: duplicate names, of which the last counts, and
// invalid UTF-8, which becomes U+FFFD. jsonv2 reads a body of 1 MB in a sixth of the time.
var legacyJSON = jsonv2.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

func decodeEvent(event []byte, r *Request) error { return jsonv2.Unmarshal(event, r, legacyJSON) }

// Timestamp returns the time for the response in the form of JavaScript's toISOString.
func (r *Request) Timestamp() string { return timestamp(r.now()) }

func timestamp(now time.Time) string { return now.UTC().Format("2006-01-02T15:04:05.000Z") }

// method returns the method as it was sent.
func (r *Request) method() string {
	if r.head {
		return http.MethodHead
	}
	return r.HTTPMethod
}

// Params returns the values of a query parameter in order, without empty ones.
func (r *Request) Params(name string) (given []string) {
	values := r.MultiValueQueryStringParameters[name]
	if values == nil {
		values = []string{r.QueryStringParameters[name]}
	}
	for _, value := range values {
		if value != "" {
			given = append(given, value)
		}
	}
	return given
}

// Param returns the last value of a query parameter; "" if it is absent.
func (r *Request) Param(name string) string {
	if values := r.Params(name); len(values) > 0 {
		return values[len(values)-1]
	}
	return ""
}

// escapedPath returns the path that the caller asked for, still encoded.
func (r *Request) escapedPath() string {
	if u, err := url.Parse(r.RawURL); err == nil && r.RawURL != "" {
		return u.EscapedPath()
	}
	return r.Path
}

// cutFunction returns the path after a function's own address or its short one: "", or with a leading slash.
func cutFunction(path, function, short string) (rest string, ok bool) {
	for _, prefix := range []string{"/.netlify/functions/" + function, short} {
		if rest, ok := strings.CutPrefix(path, prefix); ok && (rest == "" || rest[0] == '/') {
			return rest, true
		}
	}
	return "", false
}

// JSONBody returns the fields of a JSON body, each with its text. They are nil for an empty body and for JSON that is
// not an object. A body that is not JSON in UTF-8 is [kv.CodeInvalidInput], and one that is nested too deeply
// [kv.CodeUnstorableValue].
func (r *Request) JSONBody() (map[string]json.RawMessage, error) {
	body, err := r.bodyText()
	if err != nil || strings.TrimLeft(string(body), jsonSpace) == "" {
		return nil, err
	}
	var fields map[string]json.RawMessage
	if jsonv2.Unmarshal(body, &fields, legacyJSON) == nil {
		return fields, nil
	}
	fields = nil
	err = json.Unmarshal(body, &fields) // for its error messages, which callers know
	switch err := err.(type) {
	case nil:
		return fields, nil
	case *json.UnmarshalTypeError: // JSON that is not an object
		return nil, nil
	case *json.SyntaxError:
		if strings.Contains(err.Error(), "exceeded max depth") {
			return nil, &kv.Error{Code: kv.CodeUnstorableValue, Message: "the body is nested too deeply"}
		}
		return nil, kv.Invalid("the body must be JSON; it is wrong at byte %d: %v", err.Offset, err)
	default:
		return nil, kv.Invalid("the body must be JSON: %v", err)
	}
}

// Bytes returns the body as it was sent.
func (r *Request) Bytes() ([]byte, error) {
	if !r.IsBase64Encoded {
		return []byte(r.Body), nil
	}
	body, err := base64.StdEncoding.DecodeString(r.Body)
	if err != nil {
		return nil, kv.Invalid("the body is marked as base64, but is not")
	}
	return body, nil
}

// bodyText returns the body as it was sent, which must be UTF-8.
func (r *Request) bodyText() ([]byte, error) {
	body, err := r.Bytes()
	if err == nil && !utf8.Valid(body) {
		return nil, kv.Invalid("the body must be valid UTF-8")
	}
	return body, err
}

const jsonSpace = " \t\r\n"

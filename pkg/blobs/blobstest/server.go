package blobstest

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits that hosted Netlify Blobs and its clients share.
const (
	maxKeyBytes       = 600
	maxStoreNameBytes = 64
	maxMetadataBytes  = 2048 // with the name of the header that carries it
)

const (
	apiPrefix    = "/api/v1/blobs/"
	signedPrefix = "/_signed/"
	signedAccept = "application/json;type=signed-url"

	// Metadata has one name at the edge and the API, and another with a signed address. On writes the client always uses
	// the second. Both are accepted.
	metadataHeader       = "Netlify-Blobs-Metadata"
	metadataHeaderSigned = "X-Amz-Meta-User"
)

// Options adjust a [Server]. The zero value is what the local platform uses.
type Options struct {
	PageSize      int              // blobs and directories in one page of a list; default 1000
	SignedURLTTL  time.Duration    // default 5 minutes
	MaxValueBytes int64            // a larger value is refused with 413; default 64 MiB
	Now           func() time.Time // default time.Now
}

// Server behaves like Netlify Blobs for one site. It is safe for concurrent use. It must not be mounted on an
// http.ServeMux, which redirects keys with //.
type Server struct {
	opt     Options
	secrets secrets
	blobs   *storage
	faults  faults
}

// Open returns a server for the blobs in dir, which it creates if it is missing. It fails if a file in it is damaged.
func Open(dir string, opt Options) (*Server, error) {
	opt.PageSize = cmp.Or(opt.PageSize, 1000)
	opt.SignedURLTTL = cmp.Or(opt.SignedURLTTL, 5*time.Minute)
	opt.MaxValueBytes = cmp.Or(opt.MaxValueBytes, 64<<20)
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("open blobs: %w", err)
	}
	secrets, err := loadSecrets(dir)
	if err != nil {
		return nil, fmt.Errorf("open blobs: %w", err)
	}
	blobs, err := openStorage(dir, opt.Now)
	if err != nil {
		return nil, fmt.Errorf("open blobs: %w", err)
	}
	return &Server{opt: opt, secrets: secrets, blobs: blobs}, nil
}

// Close waits for the writes in progress, and refuses later ones with 503. Then the directory may be opened again.
func (s *Server) Close() error {
	s.blobs.close()
	return nil
}

// failure is an error with a status, whose text the caller sees.
type failure struct {
	status int
	text   string
}

func (f failure) Error() string { return f.text }

func failf(status int, format string, args ...any) error {
	return failure{status, fmt.Sprintf(format, args...)}
}

// request is a decoded request. Without a key it is about the store, and without a store about the site.
type request struct {
	store, key string
	query      url.Values
	api        bool // through the API, which returns signed addresses
	signed     bool // to a signed address
}

// response is written by one function, so that a fault can affect any of them.
type response struct {
	status int
	header http.Header
	body   []byte
	cut    bool // truncate the body
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == FaultsPath {
		s.faults.serve(w, r)
		return
	}
	req, err := s.parse(r)
	var body []byte
	if err == nil && r.Method == http.MethodPut {
		body, err = readBody(w, r, s.opt.MaxValueBytes) // before anything is locked, delayed or refused
	}
	if err != nil {
		failed(err).write(w)
		return
	}
	if req.api && s.faults.limited(w.Header(), time.Now()) {
		failed(failf(http.StatusTooManyRequests, "the API takes no more requests in this window")).write(w)
		return
	}
	fault := s.faults.draw(r.Method)
	time.Sleep(fault.delay) // even after the client has gone, which makes a late write
	if fault.response != nil {
		fault.response.write(w)
		return
	}
	a, err := s.run(r, req, body, fault.expired)
	if err != nil {
		a = failed(err)
	}
	if fault.lost {
		panic(http.ErrAbortHandler) // closes the connection without a response
	}
	a.cut = fault.cut && r.Method == http.MethodGet
	a.write(w)
}

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, failf(http.StatusRequestEntityTooLarge, "the value is larger than %d bytes", limit)
	case err != nil:
		return nil, failf(http.StatusBadRequest, "the body ended early")
	}
	return body, nil
}

func failed(err error) response {
	f := failure{http.StatusInternalServerError, err.Error()}
	switch {
	case errors.As(err, &f):
	case errors.Is(err, errCondition):
		f.status = http.StatusPreconditionFailed
	case errors.Is(err, errClosed):
		f.status = http.StatusServiceUnavailable
	}
	return response{status: f.status, body: []byte(f.text + "\n"), header: http.Header{
		"X-Nf-Error": {f.text}, "Content-Type": {"text/plain; charset=utf-8"},
	}}
}

func asJSON(v any) (response, error) {
	body, err := json.Marshal(v)
	return response{status: http.StatusOK, body: body, header: http.Header{"Content-Type": {"application/json"}}}, err
}

func (a response) write(w http.ResponseWriter) {
	maps.Copy(w.Header(), a.header)
	if len(a.body) > 0 {
		w.Header().Set("Content-Length", strconv.Itoa(len(a.body)))
	}
	w.WriteHeader(a.status)
	if a.cut && len(a.body) > 0 {
		_, _ = w.Write(a.body[:len(a.body)/2])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // closes the connection
	}
	_, _ = w.Write(a.body) // an error means that the client has gone
}

// parse decodes the address and checks the token.
func (s *Server) parse(r *http.Request) (req request, err error) {
	if req.query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
		return req, failf(http.StatusBadRequest, "the query cannot be read: %v", err)
	}
	path := r.URL.EscapedPath()
	if rest, ok := strings.CutPrefix(path, apiPrefix); ok {
		req.api, path = true, rest
	} else if rest, ok := strings.CutPrefix(path, signedPrefix); ok {
		req.signed, path = true, rest
	} else {
		path = strings.TrimPrefix(path, "/")
	}
	region := req.query.Get("region")
	if rest, ok := strings.CutPrefix(path, "region:"); ok && !req.api && !req.signed {
		region, path, _ = strings.Cut(rest, "/")
	}
	if region != "" && !regions[region] {
		return req, failf(http.StatusBadRequest, "the region %q does not exist", region)
	}
	parts := strings.SplitN(path, "/", 3)
	for i := range parts {
		if parts[i], err = url.PathUnescape(parts[i]); err != nil || !utf8.ValidString(parts[i]) {
			return req, failf(http.StatusBadRequest, "the address is not percent-encoded UTF-8")
		}
	}
	parts = append(parts, "", "")
	req.store, req.key = parts[1], parts[2]

	switch {
	case req.signed:
		if !s.signatureHolds(r, req.query) {
			return req, failf(http.StatusForbidden, "the signed URL has expired or is not for this request")
		}
	case req.api && !authorized(r, s.secrets.APIToken), !req.api && !authorized(r, s.secrets.EventToken):
		return req, failf(http.StatusUnauthorized, "the token is missing or wrong")
	}
	if parts[0] != s.secrets.SiteID {
		return req, failf(http.StatusForbidden, "the token is not for the site %q", parts[0])
	}
	_, name, found := strings.Cut(req.store, ":") // site:<name>, deploy:<id>[:<name>]; the oldest stores have a bare name
	if !found {
		name = req.store
	}
	if len(name) > maxStoreNameBytes || strings.Contains(name, "/") || req.store == "" && req.key != "" {
		return req, failf(http.StatusBadRequest, "the name of the store has to be 1 to %d bytes without a slash", maxStoreNameBytes)
	}
	if len(req.key) > maxKeyBytes || strings.HasPrefix(req.key, "/") || slices.ContainsFunc(strings.Split(req.key, "/"), isDots) {
		return req, failf(http.StatusBadRequest,
			"the key has to be 1 to %d bytes, without a slash at its start and without . or .. as a segment", maxKeyBytes)
	}
	return req, nil
}

func isDots(segment string) bool { return segment == "." || segment == ".." }

// run applies a request.
func (s *Server) run(r *http.Request, req request, body []byte, expired bool) (response, error) {
	switch {
	case req.store == "":
		return response{}, failf(http.StatusNotImplemented, "the address names no store, and listing stores is left out here")
	case req.key == "" && r.Method == http.MethodGet:
		return s.list(req)
	case req.key == "" && r.Method == http.MethodDelete:
		return s.removeAll(req)
	case req.key == "":
		return response{}, failf(http.StatusMethodNotAllowed, "%s needs a key", r.Method)
	// As in the server of @netlify/blobs, a write always gets an address, and a read only on request.
	case req.api && (r.Method == http.MethodPut || r.Method == http.MethodGet && wantsSignedURL(r)):
		expires := s.opt.Now().Add(s.opt.SignedURLTTL)
		if expired {
			expires = s.opt.Now().Add(-time.Second)
		}
		return asJSON(map[string]string{"url": s.signedURL(r, expires)})
	case r.Method == http.MethodGet || r.Method == http.MethodHead:
		return s.get(r, req)
	case r.Method == http.MethodPut:
		return s.put(r, req, body)
	case r.Method == http.MethodDelete:
		if r.Header.Get("If-Match") != "" || r.Header.Get("If-None-Match") != "" {
			return response{}, failf(http.StatusBadRequest, "a delete cannot have a condition")
		}
		return response{status: http.StatusNoContent}, s.blobs.remove(req.store, req.key)
	}
	return response{}, failf(http.StatusMethodNotAllowed, "%s is not known here", r.Method)
}

func wantsSignedURL(r *http.Request) bool {
	return strings.ReplaceAll(r.Header.Get("Accept"), " ", "") == signedAccept
}

func (s *Server) get(r *http.Request, req request) (response, error) {
	e, metadata, value, err := s.blobs.get(req.store, req.key)
	if err != nil {
		return response{}, err
	}
	if e == nil {
		return response{}, failf(http.StatusNotFound, "the blob does not exist")
	}
	a := response{status: http.StatusOK, body: value, header: http.Header{
		"Etag":          {e.Etag},
		"Last-Modified": {e.modified().Format(http.TimeFormat)},
		"Content-Type":  {"application/octet-stream"},
	}}
	if metadata != "" && req.signed {
		a.header.Set(metadataHeaderSigned, metadata)
	} else if metadata != "" {
		a.header.Set(metadataHeader, metadata)
	}
	if r.Header.Get("If-None-Match") == e.Etag {
		a.status, a.body = http.StatusNotModified, nil
	}
	return a, nil
}

func (s *Server) put(r *http.Request, req request, body []byte) (response, error) {
	metadata := r.Header.Get(metadataHeader)
	if metadata == "" {
		metadata = r.Header.Get(metadataHeaderSigned)
	}
	if len(metadataHeader)+len(metadata) > maxMetadataBytes {
		return response{}, failf(http.StatusBadRequest, "the metadata is larger than %d bytes", maxMetadataBytes)
	}
	cond := condition{onlyIfMatch: r.Header.Get("If-Match"), onlyIfNew: r.Header.Get("If-None-Match") == "*"}
	if !cond.onlyIfNew && r.Header.Get("If-None-Match") != "" {
		return response{}, failf(http.StatusBadRequest, "If-None-Match of a write can only be *")
	}
	e, err := s.blobs.put(req.store, req.key, body, metadata, cond)
	if err != nil {
		return response{}, err
	}
	return response{status: http.StatusOK, header: http.Header{"Etag": {e.Etag}}}, nil
}

type listedBlob struct {
	Key          string `json:"key"`
	Etag         string `json:"etag"`
	Size         int64  `json:"size"`
	LastModified string `json:"last_modified"`
}

func (s *Server) list(req request) (response, error) {
	from, err := base64.RawURLEncoding.DecodeString(req.query.Get("cursor"))
	if err != nil {
		return response{}, failf(http.StatusBadRequest, "the cursor is not one of ours")
	}
	p := s.blobs.list(req.store, req.query.Get("prefix"), string(from), req.query.Get("directories") == "true", s.opt.PageSize)
	out := struct {
		Blobs       []listedBlob `json:"blobs"`
		Directories []string     `json:"directories"`
		NextCursor  string       `json:"next_cursor,omitempty"`
	}{make([]listedBlob, len(p.entries)), append([]string{}, p.directories...), base64.RawURLEncoding.EncodeToString([]byte(p.next))}
	for i, e := range p.entries {
		out.Blobs[i] = listedBlob{e.Key, e.Etag, e.Size, e.modified().Format("2006-01-02T15:04:05.000Z")}
	}
	return asJSON(out)
}

// removeAll removes one page of a store; the client repeats it while there is more.
func (s *Server) removeAll(req request) (response, error) {
	p := s.blobs.list(req.store, "", "", false, s.opt.PageSize)
	for _, e := range p.entries {
		if err := s.blobs.remove(req.store, e.Key); err != nil {
			return response{}, err
		}
	}
	return asJSON(map[string]any{"blobs_deleted": len(p.entries), "has_more": p.next != ""})
}

package blobs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"

	"netlify-supabase-kv/pkg/upstream"
)

// httpClient follows no redirects: the service sends none, and a redirected write could become a successful read.
var httpClient = &http.Client{
	Transport:     upstream.Transport,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// exchange sends one request and reads the whole response. Its errors are the connection's and the context's, without
// the address, and [ErrTooLarge] if most is not 0 and the body has more bytes.
func exchange(ctx context.Context, method string, u *url.URL, header http.Header, body []byte, most int64) (response, error) {
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return response{}, withoutAddress(err)
	}
	r.Header = header
	httpResponse, err := httpClient.Do(r)
	if err != nil {
		return response{}, withoutAddress(err)
	}
	text, err := readBody(httpResponse, most)
	return response{status: httpResponse.StatusCode, header: httpResponse.Header, body: text}, err
}

// maxUnusedBytes is how much of an error's body is read in order to keep the connection.
const maxUnusedBytes = 64 << 10

// readBody returns the body of a success, of which it reads at most one byte more than allowed. It drops an error's
// body, which may quote the request.
func readBody(response *http.Response, most int64) ([]byte, error) {
	defer response.Body.Close()
	switch {
	case response.StatusCode != http.StatusOK:
		_, _ = io.CopyN(io.Discard, response.Body, maxUnusedBytes)
		return nil, nil
	case most == 0 || response.Request.Method == http.MethodHead: // a HEAD's Content-Length is that of a GET
		return io.ReadAll(response.Body)
	case response.ContentLength > most:
		return nil, ErrTooLarge
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, most+1))
	if int64(len(body)) > most {
		return nil, ErrTooLarge
	}
	return body, err
}

// withoutAddress unwraps an error of net/http, which quotes the address: a signed URL is a secret.
func withoutAddress(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

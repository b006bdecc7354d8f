package blobs

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"

	"netlify-supabase-kv/pkg/kv"
)

// httpClient is shared by all clients, for its connections. It follows no redirects: the service sends none, and a write that
// was redirected could become a read that succeeds.
var httpClient = &http.Client{
	Transport:     kv.NewTransport(),
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// exchange sends one request and reads the whole answer. Its errors are those of the connection and of the context, without
// the address.
func exchange(ctx context.Context, method string, u *url.URL, header http.Header, body []byte) (answer, error) {
	r, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return answer{}, withoutAddress(err)
	}
	r.Header = header
	response, err := httpClient.Do(r)
	if err != nil {
		return answer{}, withoutAddress(err)
	}
	text, err := readBody(response)
	return answer{status: response.StatusCode, header: response.Header, body: text}, err
}

// maxUnusedBytes is how much of an error's body is read: enough to keep the connection.
const maxUnusedBytes = 64 << 10

// readBody returns the body of a success. That of an error is not for us: it may quote the request.
func readBody(response *http.Response) ([]byte, error) {
	defer response.Body.Close()
	if response.StatusCode == http.StatusOK {
		return io.ReadAll(response.Body)
	}
	_, _ = io.CopyN(io.Discard, response.Body, maxUnusedBytes) // its status is known, and enough
	return nil, nil
}

// withoutAddress takes out what net/http wraps errors in, since a signed URL is a secret.
func withoutAddress(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}

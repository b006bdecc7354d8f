// Package upstream calls the services behind the stores, Supabase and Netlify: one transport, one way to repeat what
// failed, one reading of Retry-After.
package upstream

import (
	"crypto/x509"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Transport is shared by everything that calls a service, so that its connections are too. Functions are frozen
// between two requests and cannot see that the other side has closed a connection. Transport therefore drops idle
// connections earlier than gateways do. It does not ask for compression: PostgREST takes time to read the header, and
// gateways change the ETag of what they compress. The usual buffer of 4 kB makes eight reads of a page of values, which
// took a tenth of the request.
var Transport = &http.Transport{
	Proxy:               http.ProxyFromEnvironment,
	ForceAttemptHTTP2:   true,
	HTTP2:               &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 3 * time.Second},
	TLSHandshakeTimeout: 5 * time.Second,
	MaxIdleConnsPerHost: 16,
	IdleConnTimeout:     50 * time.Second,
	DisableCompression:  true,
	ReadBufferSize:      64 << 10,
}

// LoadRoots begins to read the root certificates of this machine, once, and returns at once. Reading them takes 10 to
// 30 ms, for which the first TLS handshake of a process would wait. Begun with the process, it is over before a
// distant server has answered.
var LoadRoots = sync.OnceFunc(func() {
	go func() { _, _ = x509.SystemCertPool() }() // an error is the handshake's to report
})

// MaxRetryAfter bounds what [RetryAfter] returns. No request takes that long.
const MaxRetryAfter = time.Hour

// RetryAfter returns how long a Retry-After header, in seconds or as a date, asks to wait: 0 to [MaxRetryAfter]. It
// is not ok without a header that can be read. now is this machine's time; a date is compared with the service's, see
// [Now].
func RetryAfter(header http.Header, now time.Time) (wait time.Duration, ok bool) {
	text := header.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil {
		return Wait(time.Duration(min(seconds, int(MaxRetryAfter/time.Second))) * time.Second), true // a larger number could overflow
	}
	if date, err := http.ParseTime(text); err == nil {
		return Wait(date.Sub(Now(header, now))), true
	}
	return 0, false
}

// Wait returns d within the bounds of [RetryAfter].
func Wait(d time.Duration) time.Duration { return min(max(0, d), MaxRetryAfter) }

// Now returns the time of the service that sent the header, by its Date, and now without one.
func Now(header http.Header, now time.Time) time.Time {
	if date, err := http.ParseTime(header.Get("Date")); err == nil {
		return date
	}
	return now
}

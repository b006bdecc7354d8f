package netlify

import (
	"math"
	"mime"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"netlify-supabase-kv/pkg/kv"
)

// Entries of any bytes are described by headers. This file reads and writes them; kv-batch has the same texts in its
// body.

// precondition reads If-Match and If-None-Match.
func precondition(r *Request) (p kv.Precondition, err error) {
	if p.IfMatch, err = entityTags("If-Match", r.Headers.IfMatch); err != nil {
		return p, err
	}
	p.IfNoneMatch, err = entityTags("If-None-Match", r.Headers.IfNoneMatch)
	return p, err
}

// entityTags reads * or a list of ETags; nil if the text is empty. A tag is returned without W/, which a proxy may have
// added, and without its quotation marks. A tag that has none, as in the JSON of lists, is accepted.
func entityTags(name, text string) (tags []string, err error) {
	if strings.Trim(text, " \t") == "" {
		return nil, nil
	}
	for given := range strings.SplitSeq(text, ",") {
		given = strings.Trim(given, " \t")
		tag := strings.TrimPrefix(given, "W/")
		if len(tag) >= 2 && tag[0] == '"' && tag[len(tag)-1] == '"' {
			tag = tag[1 : len(tag)-1]
		}
		if given == "" { // RFC 9110, section 5.6.1: a list may have empty elements
			continue
		}
		if tag == "" || strings.ContainsFunc(tag, func(c rune) bool { return c <= ' ' || c == '"' || c > '~' }) || tag == "*" && given != "*" {
			return nil, kv.Invalid(`%s must be * or ETags with commas between them, as in "abc", got %s`, name, excerpt([]byte(given)))
		}
		tags = append(tags, tag)
	}
	if tags == nil {
		return nil, kv.Invalid("%s has no ETag", name)
	}
	return tags, nil
}

// strongTag returns the ETag header of an entry.
func strongTag(etag string) string { return `"` + etag + `"` }

// expiry reads X-KV-TTL and X-KV-Expires; zero values mean that the entry does not expire.
func expiry(r *Request) (ttl time.Duration, expires time.Time, err error) {
	switch {
	case r.Headers.KVTTL != "" && r.Headers.KVExpires != "":
		return 0, expires, kv.Invalid("X-KV-TTL and X-KV-Expires both say when the entry expires: send one of them")
	case r.Headers.KVTTL != "":
		ttl, err = parseTTL("X-KV-TTL", strings.Trim(r.Headers.KVTTL, jsonSpace))
	case r.Headers.KVExpires != "":
		expires, err = parseExpires("X-KV-Expires", strings.Trim(r.Headers.KVExpires, jsonSpace))
	}
	return ttl, expires, err
}

// parseTTL reads a number of seconds, spelled as in JSON. One that is too large or too small stays that, for
// [kv.Operation.Validate]; 0 would mean that the entry does not expire.
func parseTTL(name, text string) (time.Duration, error) {
	if value := jsontext.Value(text); !value.IsValid() || value.Kind() != '0' {
		return 0, kv.Invalid("%s must be a number of seconds, as in 60 or 0.5e3, got %s", name, excerpt(value))
	}
	seconds, _ := strconv.ParseFloat(text, 64) // infinite where the number is too large
	micros := math.Round(min(max(seconds, -1), kv.MaxTTL.Seconds()+1) * 1e6)
	if micros == 0 {
		return -1, nil
	}
	return time.Duration(micros) * time.Microsecond, nil
}

// parseExpires reads a time in the form of ISO 8601 that RFC 3339 describes.
func parseExpires(name, text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil || at.Year() < 1970 || at.UTC().Year() > 9999 {
		return time.Time{}, kv.Invalid("%s must be a time like 2027-01-31T12:00:00.000Z, got %s", name, excerpt([]byte(text)))
	}
	return at.UTC(), nil
}

// metadataHeader reads X-KV-Metadata.
func metadataHeader(r *Request) (string, error) {
	text := strings.Trim(r.Headers.KVMetadata, jsonSpace)
	if text == "" {
		return "", nil
	}
	return compactMetadata("X-KV-Metadata", text)
}

// compactMetadata is [kv.CompactMetadata] of what a caller sent.
func compactMetadata(name, text string) (string, error) {
	compact, ok := kv.CompactMetadata(text)
	if !ok {
		return "", kv.Invalid(`%s must be a JSON object, as in {"by":"ann"}, got %s`, name, excerpt([]byte(text)))
	}
	return compact, nil
}

// contentType reads Content-Type; "" where there is none.
func contentType(r *Request) (string, error) {
	return parseContentType("Content-Type", strings.TrimSpace(r.Headers.ContentType))
}

// parseContentType checks a media type, which comes back as a header.
func parseContentType(name, text string) (string, error) {
	if text == "" {
		return "", nil
	}
	media, _, err := mime.ParseMediaType(text)
	if err != nil || !strings.Contains(media, "/") || strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c > '~' }) {
		return "", kv.Invalid("%s must be a media type, as in text/plain; charset=utf-8, got %s", name, excerpt([]byte(text)))
	}
	return text, nil
}

// isJSONType reports whether a content type says that the bytes are JSON: application/json, or one that ends in +json.
func isJSONType(contentType string) bool {
	media, _, err := mime.ParseMediaType(contentType)
	return err == nil && (media == kv.ContentTypeJSON || strings.HasSuffix(media, "+json"))
}

// entryHeader returns the headers that describe an entry.
func entryHeader(info kv.EntryInfo) map[string]string {
	header := map[string]string{
		"Content-Type":  info.ContentType,
		"ETag":          strongTag(info.ETag),
		"Last-Modified": info.Updated.UTC().Format(httpTime),
		"Cache-Control": "no-cache, no-transform",
		// The bytes are somebody's, and the address is the site's: a page among them must not run as a part of the site.
		"Content-Security-Policy": "default-src 'none'; sandbox",
	}
	if info.Metadata != "" {
		header["X-KV-Metadata"] = asciiJSON(info.Metadata)
	}
	if !info.Expires.IsZero() {
		header["X-KV-Expires"] = timestamp(info.Expires)
	}
	return header
}

// httpTime is the form of dates in headers (RFC 9110, section 5.6.7).
const httpTime = "Mon, 02 Jan 2006 15:04:05 GMT"

// asciiJSON returns JSON text with escapes for what is outside ASCII, which a header cannot hold. Outside ASCII JSON
// has only parts of strings.
func asciiJSON(text string) string {
	if strings.IndexFunc(text, func(c rune) bool { return c > '~' }) < 0 {
		return text
	}
	ascii := make([]byte, 0, 2*len(text))
	for _, c := range text {
		switch {
		case c <= '~':
			ascii = utf8.AppendRune(ascii, c)
		case c > 0xFFFF:
			high, low := utf16.EncodeRune(c)
			ascii = appendEscape(appendEscape(ascii, high), low)
		default:
			ascii = appendEscape(ascii, c)
		}
	}
	return string(ascii)
}

func appendEscape(dst []byte, unit rune) []byte {
	const hex = "0123456789abcdef"
	return append(dst, '\\', 'u', hex[unit>>12&15], hex[unit>>8&15], hex[unit>>4&15], hex[unit&15])
}

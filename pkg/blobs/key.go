package blobs

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxKeyBytes bounds a key, in UTF-8 (validateKey in @netlify/blobs).
const MaxKeyBytes = 600

// ValidateKey returns nil when the JavaScript client and this one mean the same blob by the key, and otherwise a sentence that
// says what is wrong with it.
//
// The JavaScript client does not encode keys, it makes an address of them with new URL. So a key must not hold what an address
// gives a meaning to: where a query or a fragment begins (? and #), what is another writing of a slash (\), of another
// character (% and two hex digits) or of another path (the segments . and ..). That new URL drops tabs, line breaks and
// spaces at the end is left to its users: nobody can have written such keys with it, and no other key is hit by ours.
func ValidateKey(key string) error {
	switch {
	case key == "":
		return errors.New("the key must not be empty")
	case len(key) > MaxKeyBytes:
		return fmt.Errorf("the key must be at most %d bytes of UTF-8, got %d", MaxKeyBytes, len(key))
	case !utf8.ValidString(key):
		return errors.New("the key must be valid UTF-8")
	case key[0] == '/' || len(key) >= 3 && strings.EqualFold(key[:3], "%2F"):
		return errors.New("the key must not start with a slash")
	}
	if i := strings.IndexAny(key, "?#\\\x00"); i >= 0 {
		return fmt.Errorf("the key must not contain %q", key[i])
	}
	if i := percentEncoded(key); i >= 0 {
		return fmt.Errorf("the key must not contain a %% followed by two hexadecimal digits, got %q", key[i:i+3])
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "." || segment == ".." {
			return fmt.Errorf("the key must not have %q between slashes", segment)
		}
	}
	return nil
}

// percentEncoded returns where key looks percent-encoded, or -1.
func percentEncoded(key string) int {
	for i := 0; i+2 < len(key); i++ {
		if key[i] == '%' && isHex(key[i+1]) && isHex(key[i+2]) {
			return i
		}
	}
	return -1
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

// plain are the characters that stay as they are in an address, beside letters, digits and the slashes between segments:
// those that new URL leaves alone in a path (URL standard, path percent-encode set) and that RFC 3986 allows there. A server
// that takes addresses literally, as the local one does, so finds under them what the JavaScript client wrote. | and, before
// Node 24, ^ are the exceptions, which RFC 3986 does not allow.
const plain = "-._~!$&'()*+,;=:@[]/"

// escape makes a path of a key.
func escape(key string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(key) {
		c := key[i]
		switch {
		case 'a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || strings.IndexByte(plain, c) >= 0:
			b.WriteByte(c)
		default:
			b.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return b.String()
}

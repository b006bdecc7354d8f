package blobs

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxKeyBytes bounds a key in bytes of UTF-8 (validateKey in @netlify/blobs).
const MaxKeyBytes = 600

// ValidateKey returns an error that says what is wrong, unless the key means the same blob to this client and to the
// JavaScript one.
//
// The JavaScript client does not encode keys: it passes them to new URL. So a key must not hold what has a meaning in
// an address: the beginning of a query or a fragment (? and #), another form of a slash (\), of a character (% and
// two hex digits) or of a path (the segments . and ..). new URL also drops tabs, line breaks and trailing spaces.
// Such keys are allowed: that client cannot have written them, and they collide with no other key here.
func ValidateKey(key string) error {
	if err := validateEncodedKey(key); err != nil {
		return err
	}
	if len(key) >= 3 && strings.EqualFold(key[:3], "%2F") {
		return &KeyError{"the key must not start with a slash"}
	}
	if i := strings.IndexAny(key, "?#\\"); i >= 0 {
		return &KeyError{fmt.Sprintf("the key must not contain %q", key[i])}
	}
	if i := percentEncoded(key); i >= 0 {
		return &KeyError{fmt.Sprintf("the key must not contain a %% followed by two hexadecimal digits, got %q", key[i:i+3])}
	}
	return nil
}

// validateEncodedKey is [ValidateKey] of a key that the JavaScript client is given encoded: see [Client.WithEncodedKeys].
func validateEncodedKey(key string) error {
	switch {
	case key == "":
		return &KeyError{"the key must not be empty"}
	case len(key) > MaxKeyBytes:
		return &KeyError{fmt.Sprintf("the key must be at most %d bytes of UTF-8, got %d", MaxKeyBytes, len(key))}
	case !utf8.ValidString(key):
		return &KeyError{"the key must be valid UTF-8"}
	case key[0] == '/':
		return &KeyError{"the key must not start with a slash"}
	case strings.ContainsRune(key, 0):
		return &KeyError{`the key must not contain '\x00'`}
	}
	for segment := range strings.SplitSeq(key, "/") {
		if segment == "." || segment == ".." {
			return &KeyError{fmt.Sprintf("the key must not have %q between slashes", segment)}
		}
	}
	return nil
}

// KeyError says why Blobs cannot keep a key, or a client not address it.
type KeyError struct{ reason string }

func (e *KeyError) Error() string { return e.reason }

// percentEncoded returns the position of the first percent-encoding in key, or -1.
func percentEncoded(key string) int {
	for i := 0; i+2 < len(key); i++ {
		if key[i] == '%' && isHex(key[i+1]) && isHex(key[i+2]) {
			return i
		}
	}
	return -1
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

// plain are the characters beside letters and digits that stay as they are in an address: those that new URL does not
// encode in a path (URL standard, path percent-encode set) and RFC 3986 allows there. A server that takes addresses
// literally, like the local one, then finds what the JavaScript client wrote. The exceptions are | and, before Node
// 24, ^, which RFC 3986 does not allow.
const plain = "-._~!$&'()*+,;=:@[]/"

// escape encodes a key for a path.
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

package blobs

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

const (
	// The edge and signed URLs take metadata under the first name, the API under the second. Responses use either.
	// MetadataHeader is the first name.
	MetadataHeader    = "x-amz-meta-user"
	headerMetadataAPI = "netlify-blobs-metadata"

	metadataPrefix = "b64;"
)

// MaxMetadataBytes bounds the JSON text of metadata: 1515 bytes. Its header has 2048 bytes for the name and the text
// in base64 (METADATA_MAX_SIZE in @netlify/blobs).
const MaxMetadataBytes = (2048 - len(headerMetadataAPI) - len(metadataPrefix)) / 4 * 3

// encodeMetadata returns the header's value for JSON text; "" for "".
func encodeMetadata(text string) (string, error) {
	switch {
	case text == "":
		return "", nil
	case len(text) > MaxMetadataBytes:
		return "", fmt.Errorf("the metadata must be at most %d bytes of JSON, got %d", MaxMetadataBytes, len(text))
	case !isJSON([]byte(text)):
		return "", errors.New("the metadata must be JSON")
	}
	return EncodeMetadata(text), nil
}

// EncodeMetadata returns the value of [MetadataHeader] for JSON text of any length.
func EncodeMetadata(text string) string {
	return metadataPrefix + base64.StdEncoding.EncodeToString([]byte(text))
}

// decodeMetadata returns the JSON text from a response, and "" without metadata in this form, as @netlify/blobs does.
func decodeMetadata(header http.Header) (string, error) {
	value := header.Get(headerMetadataAPI)
	if value == "" {
		value = header.Get(MetadataHeader)
	}
	if !strings.HasPrefix(value, metadataPrefix) {
		return "", nil
	}
	text, err := DecodeMetadata(value)
	if err != nil {
		return "", fmt.Errorf("the blob's metadata is %w", err)
	}
	return text, nil
}

// DecodeMetadata returns the JSON text in a value of [MetadataHeader].
func DecodeMetadata(value string) (string, error) {
	encoded, ok := strings.CutPrefix(value, metadataPrefix)
	text, err := decodeBase64(encoded)
	if !ok || err != nil || !json.Valid(text) {
		return "", errors.New("not JSON in base64")
	}
	return string(text), nil
}

// SameMetadata compares metadata. {} counts as none, as in the JavaScript client; the server of @netlify/blobs
// returns it.
func SameMetadata(a, b string) bool {
	return a == b || (a == "" || a == "{}") && (b == "" || b == "{}")
}

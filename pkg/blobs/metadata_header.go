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
	// The edge and signed URLs take metadata under the first name, the API under the second; answers come with either.
	headerMetadata    = "x-amz-meta-user"
	headerMetadataAPI = "netlify-blobs-metadata"

	metadataPrefix = "b64;"
)

// MaxMetadataBytes bounds the JSON text of metadata: 1515 bytes. The header that carries it has 2048 for its name and the
// text in base64 (METADATA_MAX_SIZE in @netlify/blobs).
const MaxMetadataBytes = (2048 - len(headerMetadataAPI) - len(metadataPrefix)) / 4 * 3

// encodeMetadata makes a header's value of JSON text: "" of "".
func encodeMetadata(text string) (string, error) {
	switch {
	case text == "":
		return "", nil
	case len(text) > MaxMetadataBytes:
		return "", fmt.Errorf("the metadata must be at most %d bytes of JSON, got %d", MaxMetadataBytes, len(text))
	case !isJSON([]byte(text)):
		return "", errors.New("the metadata must be JSON")
	}
	return metadataPrefix + base64.StdEncoding.EncodeToString([]byte(text)), nil
}

// decodeMetadata reads the JSON text from an answer: "" when there is none or it is not in our form, as in @netlify/blobs.
func decodeMetadata(header http.Header) (string, error) {
	value := header.Get(headerMetadataAPI)
	if value == "" {
		value = header.Get(headerMetadata)
	}
	encoded, ok := strings.CutPrefix(value, metadataPrefix)
	if !ok {
		return "", nil
	}
	text, err := decodeBase64(encoded)
	if err != nil || !json.Valid(text) {
		return "", errors.New("the blob's metadata is not JSON in base64")
	}
	return string(text), nil
}

// sameMetadata takes {} for none, as the JavaScript client does; the server of @netlify/blobs answers with it.
func sameMetadata(a, b string) bool {
	return a == b || (a == "" || a == "{}") && (b == "" || b == "{}")
}

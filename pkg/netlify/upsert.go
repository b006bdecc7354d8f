package netlify

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"netlify-supabase-kv/pkg/kv"
)

type upserter interface {
	Upsert(ctx context.Context, entry kv.Entry) (kv.Written, error)
}

// Upsert is the kv-upsert endpoint.
func Upsert(store upserter) Endpoint {
	return Endpoint{Name: "kv-upsert", Writes: []string{http.MethodPost}, Run: func(ctx context.Context, r *Request) (*Response, error) {
		entry, err := upsertEntry(r)
		if err != nil {
			return nil, err
		}
		written, err := store.Upsert(ctx, entry)
		if err != nil {
			return nil, err
		}
		body := kv.AppendString([]byte(`{"ok":true,"key":`), entry.Key)
		body = kv.AppendString(append(body, `,"timestamp":`...), r.Timestamp())
		return &Response{Status: http.StatusOK, Header: versionHeader(written), Body: append(body, '}')}, nil
	}}
}

// UpsertBlob is the kv-upsert-blob endpoint: kv-upsert that always writes to Netlify Blobs.
func UpsertBlob(store upserter) Endpoint {
	endpoint := Upsert(store)
	endpoint.Name = "kv-upsert-blob"
	return endpoint
}

// versionHeader returns the header whose value a reader may send back as X-KV-After.
func versionHeader(written kv.Written) map[string]string {
	return map[string]string{"X-KV-Version": written.Version}
}

// upsertEntry reads the body. The value keeps its text.
func upsertEntry(r *Request) (kv.Entry, error) {
	fields, err := r.JSONBody()
	if err != nil {
		return kv.Entry{}, err
	}
	value := strings.Trim(string(fields["value"]), jsonSpace)
	if !isString(fields["key"]) || string(fields["key"]) == `""` || value == "" || !strings.ContainsRune("{[n", rune(value[0])) {
		return kv.Entry{}, kv.Invalid("key and JSON value required")
	}
	key, ok := kv.Unquote(fields["key"])
	if !ok {
		return kv.Entry{}, kv.Invalid("key must not contain half of a surrogate pair")
	}
	indexes, err := upsertIndexes(fields["indexes"])
	if err != nil {
		return kv.Entry{}, err
	}
	return kv.Entry{Key: key, Value: value, Indexes: indexes}, nil
}

// upsertIndexes reads the indexes field; nil unless it is an array. Elements whose key or member is missing or falsy
// in JavaScript are ignored, as shipped clients expect.
func upsertIndexes(text json.RawMessage) ([]kv.Index, error) {
	var elements []json.RawMessage
	if json.Unmarshal(text, &elements) != nil || elements == nil {
		return nil, nil
	}
	indexes := []kv.Index{}
	for i, element := range elements {
		var fields map[string]json.RawMessage
		if json.Unmarshal(element, &fields) != nil || isFalsy(fields["key"]) || isFalsy(fields["member"]) {
			continue
		}
		index, err := readIndex(fmt.Sprintf("indexes[%d]", i), fields)
		if err != nil {
			return nil, err
		}
		indexes = append(indexes, index)
	}
	return indexes, nil
}

// isFalsy reports whether JavaScript takes a field for false. A missing one is undefined there.
func isFalsy(text json.RawMessage) bool {
	switch {
	case len(text) == 0:
		return true
	case text[0] == '-' || '0' <= text[0] && text[0] <= '9':
		return kv.IsZero(string(text))
	}
	return slices.Contains([]string{`null`, `false`, `""`}, string(text))
}

// readIndex reads {"key":…,"member":…}. A number keeps its JSON text as a member, and counts as a string as a key.
func readIndex(position string, fields map[string]json.RawMessage) (kv.Index, error) {
	var parts [2]kv.Member
	for i, name := range []string{"key", "member"} {
		text := fields[name]
		if len(text) == 0 || !strings.ContainsRune(`"-0123456789`, rune(text[0])) {
			return kv.Index{}, kv.Invalid("%s.%s must be a string or a number, got %s", position, name, excerpt(text))
		}
		if isString(text) && kv.HasLoneSurrogate(string(text)) {
			return kv.Index{}, kv.Invalid("%s.%s must not contain half of a surrogate pair", position, name)
		}
		part, ok := kv.ParseMember(string(text))
		if !ok {
			return kv.Index{}, kv.Invalid("%s.%s must not contain U+0000", position, name)
		}
		parts[i] = part
	}
	return kv.Index{Key: parts[0].Text(), Member: parts[1]}, nil
}

// isString reports whether JSON text is a string.
func isString[T ~[]byte](text T) bool { return len(text) > 0 && text[0] == '"' }

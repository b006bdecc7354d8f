package entries

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"unicode/utf8"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/sources"
)

// Options say how entries are made of blobs. They are the same for every run of a migration.
type Options struct {
	// IndexPrefix is what the keys of index entries begin with; "" where there are none, as in a store other than kv.
	IndexPrefix string `json:"index_prefix,omitempty"`
	// SkipNonJSON leaves out a blob that is not JSON, and calls that no failure.
	SkipNonJSON bool `json:"skip_non_json,omitempty"`
}

// For returns the options for a store, or what is wrong with them. Only the store kv has index entries.
func (o Options) For(store string) (Options, error) {
	switch {
	case store != kv.DefaultStore && o.SkipNonJSON:
		return o, errors.New("only the store kv can leave out blobs that are not JSON: other stores take any bytes")
	case store != kv.DefaultStore:
		o.IndexPrefix = ""
	case o.IndexPrefix == "":
		return o, fmt.Errorf("the index prefix must not be empty: it is what the keys of index entries begin with, as in %s", DefaultIndexPrefix)
	}
	return o, nil
}

// Problem is why an entry could not be migrated, or what a reader should know of it.
type Problem struct {
	Key    string `json:"key"`
	Code   string `json:"code"`
	Reason string `json:"reason"`
	Advice string `json:"advice,omitempty"`
}

// The codes of problems.
const (
	CodeNotJSON     = "not_json" // in the store kv, whose functions return JSON alone
	CodeBadKey      = "bad_key"  // no store can keep it, or no client can read it
	CodeUnreadable  = "unreadable"
	CodeBadMetadata = "bad_metadata"
	CodeTooLarge    = "too_large"    // no function could return it
	CodeRefused     = "refused"      // by the database
	CodeSkipped     = "skipped"      // not JSON, and that was said to be fine
	CodeNoQueries   = "no_queries"   // comparisons and full text see a part of the value replaced
	CodeNoFullText  = "no_full_text" // full text does not find the value
)

// Entry is what is stored of a blob.
type Entry struct {
	kv.State
	Note *Problem // nil, or what to know of it
}

// Members is how many elements the array of an index entry has; 0 for any other.
func (e Entry) Members() int {
	if !e.IsIndex {
		return 0
	}
	elements, _ := readElements(e.Value)
	return len(elements)
}

// isIndex reports whether a blob is an index entry: its members were added to it.
func (o Options) isIndex(key string, value []byte) bool {
	if o.IndexPrefix == "" || !strings.HasPrefix(key, o.IndexPrefix) || notJSON(value) != "" {
		return false
	}
	_, ok := readElements(string(value))
	return ok
}

// Transform makes the entry of a blob, with the indexes that rules give it if it does not say itself which it has;
// problem is why there is none.
func (o Options) Transform(item sources.Item, ruled [][2]string) (e Entry, problem *Problem) {
	if problem := checkItem(item); problem != nil {
		return e, problem
	}
	e.State = kv.State{
		Key: item.Key, Value: string(item.Blob.Value), Indexes: item.Indexes, IsIndex: item.IsIndex || o.isIndex(item.Key, item.Blob.Value),
		Created: item.Created, Updated: item.Updated, Metadata: item.Metadata, ContentType: item.ContentType, Expires: item.Expires,
	}
	if !item.LastModified.IsZero() {
		e.Created, e.Updated = cmp.Or(e.Created, item.LastModified.UnixMicro()), cmp.Or(e.Updated, item.LastModified.UnixMicro())
	}
	if e.Indexes == nil {
		e.Indexes = [][2]string{}
		if !e.IsIndex {
			e.Indexes = append(e.Indexes, ruled...)
		}
	}
	if e.Metadata != "" {
		var isObject bool
		if e.Metadata, isObject = kv.CompactMetadata(item.Metadata); !isObject {
			return e, &Problem{Key: item.Key, Code: CodeBadMetadata, Reason: "its metadata is not a JSON object", Advice: "write the blob again with an object as its metadata, or without any"}
		}
	}
	reason := notJSON(item.Blob.Value)
	switch {
	case reason != "" && o.SkipNonJSON:
		return e, &Problem{Key: item.Key, Code: CodeSkipped, Reason: reason}
	case reason != "":
		e.Value, e.Data = "", item.Blob.Value
		if e.Data == nil {
			e.Data = []byte{}
		}
		if o.IndexPrefix != "" {
			e.Note = &Problem{Key: item.Key, Code: CodeNotJSON, Reason: reason,
				Advice: "it is stored as it is; kv-entries returns it, and kv-get and kv-list with values answer 415"}
		}
	case !e.IsIndex:
		e.Note = note(item.Key, e.Value)
	}
	return e, nil
}

func checkItem(item sources.Item) *Problem {
	if err := kv.ValidateKey(item.Key); err != nil {
		return &Problem{Key: strings.ToValidUTF8(item.Key, "\uFFFD"), Code: CodeBadKey, Reason: err.Error(), Advice: "copy the blob to another key, and delete this one"}
	}
	var row *sources.RowError
	if errors.As(item.Err, &row) {
		return &Problem{Key: item.Key, Code: CodeUnreadable, Reason: row.Error(), Advice: "change the row, and run again"}
	}
	if item.Err != nil {
		if errors.As(item.Err, new(*blobs.KeyError)) {
			return &Problem{Key: item.Key, Code: CodeBadKey, Reason: item.Err.Error() + ": no client can read it under this key", Advice: "nothing can be done from here: tell Netlify's support if its content matters"}
		}
		if errors.Is(item.Err, blobs.ErrTooLarge) {
			return &Problem{Key: item.Key, Code: CodeTooLarge, Reason: "the blob is larger than an entry may be (docs/ENTRIES.md, Limits)", Advice: "it stays in Blobs: read it from there, or keep it in parts"}
		}
		return &Problem{Key: item.Key, Code: CodeUnreadable, Reason: item.Err.Error(), Advice: "run again; if it stays, read the blob with the Netlify CLI"}
	}
	return nil
}

// notJSON says what a value is where it is not JSON.
func notJSON(value []byte) string {
	switch {
	case len(value) == 0:
		return "the blob is empty"
	case !utf8.Valid(value):
		return "the blob is not text in UTF-8"
	case !json.Valid(value):
		return "the blob is not JSON, or nested deeper than 10,000 levels"
	}
	return ""
}

// maxSearchBytes is up to where full text is derived (kv.search_vector).
const maxSearchBytes = 200_000

// note says what queries do not see of a value.
func note(key, value string) *Problem {
	if reason := unqueryable(value); reason != "" {
		return &Problem{Key: key, Code: CodeNoQueries, Reason: reason,
			Advice: "it is stored as it is; where, sort and search of kv-query see U+FFFD in place of such a character, and such a number as text"}
	}
	if len(value) > maxSearchBytes {
		return &Problem{Key: key, Code: CodeNoFullText, Reason: fmt.Sprintf("it is longer than %d bytes", maxSearchBytes), Advice: "search of kv-query does not find it; comparisons do"}
	}
	return nil
}

// The bounds of numeric (Postgres 17, "Numeric Types"): digits before and after the decimal point.
const (
	maxDigitsBefore = 131_072
	maxDigitsAfter  = 16_383
)

// unqueryable says why jsonb cannot hold a JSON text, as far as that can be told without Postgres; "" where it can.
func unqueryable(value string) string {
	switch {
	case hasEscapedNUL(value):
		return `it has the character \u0000, which Postgres' jsonb cannot hold`
	case kv.HasLoneSurrogate(value):
		return "it has half of a surrogate pair, which Postgres' jsonb cannot hold"
	case hasHugeNumber(value):
		return "it has a number that Postgres' jsonb cannot hold"
	}
	return ""
}

func hasEscapedNUL(text string) bool {
	for i := 0; i+1 < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		if strings.HasPrefix(text[i:], `\u0000`) {
			return true
		}
		i++
	}
	return false
}

func hasHugeNumber(text string) bool {
	if len(text) < maxDigitsAfter && !strings.ContainsAny(text, "eE") {
		return false
	}
	inString := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\':
			i++
		case c == '"':
			inString = !inString
		case !inString && (c == '-' || '0' <= c && c <= '9'):
			end := i + 1
			for end < len(text) && strings.IndexByte("0123456789.eE+-", text[end]) >= 0 {
				end++
			}
			if isHuge(strings.TrimPrefix(text[i:end], "-")) {
				return true
			}
			i = end - 1
		}
	}
	return false
}

// isHuge reports whether numeric cannot hold the number.
func isHuge(number string) bool {
	mantissa, exponentText, hasExponent := strings.Cut(strings.ToLower(number), "e")
	whole, fraction, _ := strings.Cut(mantissa, ".")
	exponent := int64(0)
	if hasExponent {
		n, ok := new(big.Int).SetString(strings.TrimPrefix(exponentText, "+"), 10)
		if !ok || !n.IsInt64() || n.Int64() > 1<<30 || n.Int64() < -1<<30 {
			return true
		}
		exponent = n.Int64()
	}
	if int64(len(fraction))-exponent > maxDigitsAfter {
		return true
	}
	digits := strings.TrimLeft(whole+fraction, "0") // what is before the point begins with the first digit that counts
	return digits != "" && int64(len(digits)-len(fraction))+exponent > maxDigitsBefore
}

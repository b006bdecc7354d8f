package blobs

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/blobs/blobstest"
)

func TestMetadataRoundTrips(t *testing.T) {
	t.Parallel()
	eachWay(t, blobstest.Options{}, func(t *testing.T, _ *standIn, c *Client) {
		for name, metadata := range map[string]string{
			"None": "", "Empty": "{}", "Spaces": `{ "b": 1.0, "a" : [ ] }`, "Unicode": `{"é":"😀\u0000"}`, "NoObject": `"text"`,
			"Largest": `"` + strings.Repeat("m", MaxMetadataBytes-2) + `"`,
		} {
			t.Run(name, func(t *testing.T) {
				_, err := c.Set(t.Context(), "a", []byte("1"), SetOptions{Metadata: metadata})
				require.NoError(t, err)
				got, err := c.Get(t.Context(), "a")
				require.NoError(t, err)
				require.Equal(t, metadata, got.Metadata)
				got, err = c.Head(t.Context(), "a")
				require.NoError(t, err)
				require.Equal(t, metadata, got.Metadata)
			})
		}
	})
}

// TestTheLargestMetadataFits compares MaxMetadataBytes with the limit of @netlify/blobs, which is on the header.
func TestTheLargestMetadataFits(t *testing.T) {
	t.Parallel()
	const bound = 2048
	size := func(n int) int { return len("netlify-blobs-metadata") + len("b64;") + base64.StdEncoding.EncodedLen(n) }
	require.LessOrEqual(t, size(MaxMetadataBytes), bound)
	require.Greater(t, size(MaxMetadataBytes+1), bound)
}

func TestDecodeMetadata(t *testing.T) {
	t.Parallel()
	encoded := "b64;" + base64.StdEncoding.EncodeToString([]byte(`{"a":1}`))
	for name, tt := range map[string]struct {
		header    http.Header
		want, err string
	}{
		"External":     {http.Header{"Netlify-Blobs-Metadata": {encoded}}, `{"a":1}`, ""},
		"Internal":     {http.Header{"X-Amz-Meta-User": {encoded}}, `{"a":1}`, ""},
		"FirstOfBoth":  {http.Header{"Netlify-Blobs-Metadata": {encoded}, "X-Amz-Meta-User": {"b64;e30="}}, `{"a":1}`, ""},
		"NoPadding":    {http.Header{"X-Amz-Meta-User": {"b64;e30"}}, `{}`, ""},
		"None":         {http.Header{}, "", ""},
		"Empty":        {http.Header{"X-Amz-Meta-User": {""}}, "", ""},
		"OtherForm":    {http.Header{"X-Amz-Meta-User": {"x"}}, "", ""},
		"ErrNotBase64": {http.Header{"X-Amz-Meta-User": {"b64;!"}}, "", "the blob's metadata is not JSON in base64"},
		"ErrNotJSON":   {http.Header{"X-Amz-Meta-User": {"b64;eA=="}}, "", "the blob's metadata is not JSON in base64"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := decodeMetadata(tt.header)
			require.Equal(t, tt.want, got)
			if tt.err == "" {
				require.NoError(t, err)
			} else {
				require.EqualError(t, err, tt.err)
			}
		})
	}
	c, asked := script(t, status(200, "X-Amz-Meta-User", "b64;!"))
	_, err := c.Get(t.Context(), "a")
	require.EqualError(t, err, "blobs: get: the blob's metadata is not JSON in base64")
	require.Equal(t, 1, asked())
}

func FuzzMetadataRoundTrips(f *testing.F) {
	for _, text := range []string{"", "{}", `{"a":"é😀"}`, " [1,\n2] ", "{", "\xff", "\"\xff\"", `"` + strings.Repeat("m", 1600) + `"`} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		value, err := encodeMetadata(text)
		refused := text != "" && (!utf8.ValidString(text) || !json.Valid([]byte(text)) || len(text) > MaxMetadataBytes)
		require.Equal(t, refused, err != nil)
		if err != nil {
			return
		}
		require.LessOrEqual(t, len(headerMetadataAPI)+len(value), 2048)
		for _, name := range []string{MetadataHeader, headerMetadataAPI} {
			header := http.Header{}
			header.Set(name, value)
			got, err := decodeMetadata(header)
			require.NoError(t, err)
			require.Equal(t, text, got)
		}
	})
}

// Supabase refuses a row with any other time, and the batch of a migration with it.
func TestTimesInMetadataAreThoseThatAnswersCanShow(t *testing.T) {
	t.Parallel()
	kept := parseMetadata(`{"c":253402300799999999,"u":-62135596800000000}`)
	require.Equal(t, [2]int64{253402300799999999, -62135596800000000}, [2]int64{kept.Created, kept.Updated})
	for _, text := range []string{`{"c":253402300800000000,"u":-62135596800000001}`, `{"c":9223372036854775807,"u":-9223372036854775808}`} {
		m := parseMetadata(text)
		require.Equal(t, [2]int64{}, [2]int64{m.Created, m.Updated}, text)
	}
}

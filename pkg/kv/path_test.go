package kv

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAPathIsDottedOrAPointer(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Path{
		"score":                            {"score"},
		"stops.0.title":                    {"stops", "0", "title"},
		"a b.ü.😀":                          {"a b", "ü", "😀"},
		"a~1b.c/d":                         {"a~1b", "c/d"}, // escapes are for pointers
		"$$.;--.%_\\":                      {"$$", ";--", `%_\`},
		"/a.b/c~1d/~0":                     {"a.b", "c/d", "~"},
		"/~01":                             {"~1"}, // RFC 6901: ~1 before ~0
		"/":                                {""},
		"//a/":                             {"", "a", ""},
		" ":                                {" "},
		"createdAt":                        {"createdAt"},
		"/createdAt":                       {"createdAt"},
		"index:a":                          {"index:a"},
		"-1":                               {"-1"},
		"a" + rep(".a", MaxPathSegments-1): slices.Repeat(Path{"a"}, MaxPathSegments),
		rep("a", MaxPathBytes):             {rep("a", MaxPathBytes)},
	} {
		got, err := ParsePath(text)
		require.NoError(t, err, "%q", text)
		require.Equal(t, want, got, "%q", text)
		again, err := ParsePath(got.Pointer())
		if len(got.Pointer()) <= MaxPathBytes {
			require.NoError(t, err, "%q", got.Pointer())
			require.Equal(t, got, again, "the pointer %q is the same path", got.Pointer())
		}
	}
}

func TestWhatIsNoPathIsRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                               `a path must be like score, stops.0.title or /a~1b, got ""`,
		".":                              `a path must be like score, stops.0.title or /a~1b, got "."`,
		".a":                             `a path must be like score, stops.0.title or /a~1b, got ".a"`,
		"a.":                             `a path must be like score, stops.0.title or /a~1b, got "a."`,
		"a..b":                           `a path must be like score, stops.0.title or /a~1b, got "a..b"`,
		"/a~":                            `in a path that begins with / a ~ is written ~0 and a slash ~1, got "a~"`,
		"/x/~2":                          `in a path that begins with / a ~ is written ~0 and a slash ~1, got "~2"`,
		"/~~0":                           `in a path that begins with / a ~ is written ~0 and a slash ~1, got "~~0"`,
		"a\x00":                          "a path must be valid UTF-8 without U+0000",
		"/\xff":                          "a path must be valid UTF-8 without U+0000",
		"\xed\xa0\x80":                   "a path must be valid UTF-8 without U+0000", // half of a surrogate pair
		"a" + rep(".a", MaxPathSegments): "a path must have at most 100 parts, got 101",
		rep("/", MaxPathSegments+1):      "a path must have at most 100 parts, got 101",
		rep("a", MaxPathBytes+1):         "a path must be at most 1024 bytes, got 1025",
		rep("ü", 600):                    "a path must be at most 1024 bytes, got 1200",
	} {
		path, err := ParsePath(text)
		require.EqualError(t, err, want, "%q", text)
		require.Nil(t, path)
	}
}

func rep(text string, n int) string { return strings.Repeat(text, n) }

// FuzzParsePath: a path that is accepted is within the limits, and its pointer leads to the same.
func FuzzParsePath(f *testing.F) {
	for _, text := range []string{"", "a", "a.0.b", "/a~1b/~0", "/", "//", ".", "a..b", "/~2", "$$;--", "a\x00", "\xff", rep("a.", 99) + "a"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		path, err := ParsePath(text)
		if err != nil {
			require.Less(t, len(err.Error()), 400, "an error is not as large as what it is about")
			return
		}
		require.NoError(t, path.validate())
		again, err := parsePointer(path.Pointer())
		require.NoError(t, err)
		require.Equal(t, path, again)
		if text[0] == '/' {
			require.Equal(t, text, path.Pointer())
		} else {
			require.Equal(t, text, strings.Join(path, "."))
		}
	})
}

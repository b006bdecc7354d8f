package kv

import (
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/stretchr/testify/require"
)

func TestAPathIsDottedOrAPointer(t *testing.T) {
	t.Parallel()
	for text, want := range map[Path]Path{
		"score":                                  "/score",
		"stops.0.title":                          "/stops/0/title",
		"a b.ü.😀":                                "/a b/ü/😀",
		"a~1b.c/d":                               "/a~01b/c~1d", // escapes are for pointers
		"$$.;--.%_\\":                            "/$$/;--/%_\\",
		"/a.b/c~1d/~0":                           "/a.b/c~1d/~0",
		"/~01":                                   "/~01", // RFC 6901: ~1 before ~0
		"/":                                      "/",
		"//a/":                                   "//a/",
		" ":                                      "/ ",
		"createdAt":                              "createdAt",
		"/createdAt":                             "/createdAt",
		"index:a":                                "/index:a",
		"-1":                                     "/-1",
		Path("a" + rep(".a", MaxPathSegments-1)): Path(rep("/a", MaxPathSegments)),
		Path(rep("a", MaxPathBytes)):             Path("/" + rep("a", MaxPathBytes)),
	} {
		require.NoError(t, text.Validate(), "%q", text)
		require.Equal(t, want, text.Pointer(), "%q", text)
		require.Equal(t, want, want.Pointer(), "%q", want)
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
		require.EqualError(t, Path(text).Validate(), want, "%q", text)
	}
}

func rep(text string, n int) string { return strings.Repeat(text, n) }

// FuzzParsePath: a path that is accepted is within the limits, and its pointer leads to the same.
func FuzzParsePath(f *testing.F) {
	for _, text := range []string{"", "a", "a.0.b", "/a~1b/~0", "/", "//", ".", "a..b", "/~2", "$$;--", "a\x00", "\xff", rep("a.", 99) + "a"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		path := Path(text)
		if err := path.Validate(); err != nil {
			require.Less(t, len(err.Error()), 400, "an error is not as large as what it is about")
			return
		}
		if path.isOwn() {
			return
		}
		names := slices.Collect(jsontext.Pointer(path.Pointer()).Tokens())
		if text[0] == '/' {
			require.Equal(t, path, path.Pointer())
		} else {
			require.Equal(t, text, strings.Join(names, "."))
		}
	})
}

package kv

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDepth(t *testing.T) {
	for text, want := range map[string]int{
		`null`: 0, `[]`: 1, `{"a":[{}]}`: 3, `["[[[\"[","\\"]`: 1, `[[],[[]]]`: 3, `{"{":"}"}`: 1,
	} {
		require.Equal(t, want, depth(text), text)
	}
}

func encodeCursor(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func TestForeignCursorsAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"NotBase64":        "%%%",
		"Padded":           encodeCursor(`{"question":"q","position":null,"key":"k"}`) + "=",
		"NotJSON":          encodeCursor("hello"),
		"AnArray":          encodeCursor(`["q",null,"k"]`),
		"NoKey":            encodeCursor(`{"question":"q","position":null}`),
		"OneFieldMore":     encodeCursor(`{"question":"q","position":null,"key":"k","a":1}`),
		"KeyTwice":         encodeCursor(`{"question":"q","position":null,"key":"k","key":"k"}`),
		"QuestionIsNoText": encodeCursor(`{"question":1,"position":null,"key":"k"}`),
		"EmptyKey":         encodeCursor(`{"question":"q","position":null,"key":""}`),
		"NULInKey":         encodeCursor(`{"question":"q","position":null,"key":"\u0000"}`),
		"HalfASurrogate":   encodeCursor(`{"question":"q","position":null,"key":"\ud800"}`),
		"LongKey":          encodeCursor(`{"question":"q","position":null,"key":"` + strings.Repeat("k", MaxKeyBytes+1) + `"}`),
		"Null":             encodeCursor(`null`),
	} {
		_, err := ParseCursor(text)
		require.Equal(t, CodeInvalidInput, CodeOf(err), name)
	}
	c, err := ParseCursor(encodeCursor(`{"question" : "q", "position" : 1795439674165274, "key" : "k"}`))
	require.NoError(t, err)
	require.Equal(t, &Cursor{Question: "q", Position: jsonText("1795439674165274"), Key: "k"}, c)
	require.Equal(t, encodeCursor(`{"question":"q","position":1795439674165274,"key":"k"}`), c.String())
}

// FuzzParseCursor checks that an accepted cursor round-trips, and is usable or refused in every order.
func FuzzParseCursor(f *testing.F) {
	for _, text := range []string{`{"question":"q","position":null,"key":"k"}`, `{"question":"q","position":1,"key":"\ud800"}`, `{"question":"q","position":[0,1.5],"key":"k"}`, `{"question":"q","position":[1,"x"],"key":"k"}`} {
		f.Add(encodeCursor(text))
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCursor(text)
		if err != nil {
			require.Equal(t, CodeInvalidInput, CodeOf(err))
			return
		}
		again, err := ParseCursor(c.String())
		require.NoError(t, err)
		require.Equal(t, c, again)
		for _, sort := range [][]SortKey{nil, {{Path: "createdAt"}}, {{Path: "a"}}} {
			q := Query{Sort: sort, After: c}
			c.Question = q.question()
			if q.Validate() == nil {
				require.Contains(t, encodeArgs(q.complete()), `"cursor":{"question":`)
			}
		}
		list := ListQuery{Sort: SortKey{Path: "createdAt"}, After: c}
		c.Question = list.Question()
		if list.Validate() == nil {
			_, ok := c.Micros()
			require.True(t, ok)
		}
	})
}

func TestListQueryLimits(t *testing.T) {
	number := func(n int) *int { return &n }
	for name, q := range map[string]ListQuery{
		"NULInPrefix":       {Prefix: "\x00"},
		"LimitZero":         {Limit: number(0)},
		"LimitAbove":        {Limit: number(MaxLimit + 1)},
		"NegativeOffset":    {Offset: number(-1)},
		"OffsetAndCursor":   {Offset: number(0), After: &Cursor{}},
		"SortByAPath":       {Sort: SortKey{Path: "a"}},
		"CursorOfAnother":   {After: &Cursor{Question: "q", Key: "k"}},
		"IndexWithoutColon": {Indexes: []string{"abc"}},
		"IndexWithoutKey":   {Indexes: []string{":abc"}},
		"IndexNoMember":     {Indexes: []string{"abc:"}},
		"IndexTwoColons":    {Indexes: []string{"::"}},
		"NULInIndex":        {Indexes: []string{"a:\x00"}},
		"NULInIndexKey":     {IndexKeys: []string{"\x00"}},
		"LongIndex":         {Indexes: []string{"a:" + strings.Repeat("b", MaxKeyBytes-1)}},
		"LongIndexKey":      {IndexKeys: []string{strings.Repeat("b", MaxKeyBytes+1)}},
		"ManyReadings":      {Indexes: []string{strings.Repeat(":", MaxKeyBytes), "a:b", "a::b"}},
		"ManyFilters":       {Indexes: make([]string, MaxFilters), IndexKeys: []string{"a"}},
	} {
		require.Equal(t, CodeInvalidInput, CodeOf(q.Validate()), name)
	}
	require.NoError(t, ListQuery{Indexes: []string{"a:" + strings.Repeat("b", MaxKeyBytes-2)}, IndexKeys: []string{strings.Repeat("b", MaxKeyBytes)}}.Validate())
	require.NoError(t, ListQuery{Indexes: []string{"a::", "::b", "a:b", ":::"}}.Validate())
	most := strings.Repeat(":", MaxKeyBytes)
	require.NoError(t, ListQuery{Indexes: []string{most, most}}.Validate(), "any filter by itself")
}

func TestErrorKeepsTheCauseOutOfTheMessage(t *testing.T) {
	cause := errors.New("cause")
	err := fmt.Errorf("wrapped: %w", &Error{Code: CodeTooLarge, Message: "message", Op: "operation", Err: cause})
	require.Equal(t, "wrapped: operation: too_large: message: cause", err.Error())
	require.ErrorIs(t, err, cause)
	require.Equal(t, CodeTooLarge, CodeOf(err))
	require.Equal(t, CodeInternal, CodeOf(cause))
	require.Equal(t, Code(""), CodeOf(nil))
}

package kv

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDepthCountsBracketsOutsideStrings(t *testing.T) {
	for text, want := range map[string]int{
		`null`: 0, `[]`: 1, `{"a":[{}]}`: 3, `["[[[\"[","\\"]`: 1, `[[],[[]]]`: 3, `{"{":"}"}`: 1,
	} {
		require.Equal(t, want, depth(text), text)
	}
}

func TestOrderIsReadFromItsTwoParameters(t *testing.T) {
	for given, want := range map[[2]string]Order{
		{"", ""}: OrderByKey, {"key", "desc"}: "key.desc", {"created", ""}: "created.asc", {"updated", "desc"}: "updated.desc",
	} {
		got, err := ParseOrder(given[0], given[1])
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, given := range [][2]string{{"size", ""}, {"key", "up"}, {"Key", ""}, {"", "ASC"}, {"key.asc", ""}} {
		_, err := ParseOrder(given[0], given[1])
		require.Equal(t, CodeInvalidInput, CodeOf(err), "%v", given)
	}
}

func encodeCursor(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }

func TestCursorsThatAreNotOursAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"NotBase64":          "%%%",
		"Padded":             encodeCursor(`["key.asc",null,"k"]`) + "=",
		"NotJSON":            encodeCursor("hello"),
		"NotAnArray":         encodeCursor(`{"a":1}`),
		"TooFew":             encodeCursor(`["key.asc",null]`),
		"TooMany":            encodeCursor(`["key.asc",null,"k",1]`),
		"UnknownOrder":       encodeCursor(`["size.asc",1,"k"]`),
		"OrderInOneWord":     encodeCursor(`["key",null,"k"]`),
		"OrderOfThreeWords":  encodeCursor(`["key.asc.desc",null,"k"]`),
		"TimeWhereKey":       encodeCursor(`["key.asc",1,"k"]`),
		"NoTimeWhereCreated": encodeCursor(`["created.asc",null,"k"]`),
		"TimeIsNoInteger":    encodeCursor(`["created.asc",1.5,"k"]`),
		"TimeIsTooLate":      encodeCursor(`["created.asc",9223372036854775807,"k"]`),
		"TimeIsTooEarly":     encodeCursor(`["created.asc",-9223372036854775808,"k"]`),
		"EmptyKey":           encodeCursor(`["key.asc",null,""]`),
		"NULInKey":           encodeCursor(`["key.asc",null,"\u0000"]`),
		"LongKey":            encodeCursor(`["key.asc",null,"` + strings.Repeat("k", MaxKeyBytes+1) + `"]`),
		"Null":               encodeCursor(`null`),
	} {
		_, err := ParseCursor(text)
		require.Equal(t, CodeInvalidInput, CodeOf(err), name)
	}
	micros := int64(1795439674165274)
	c, err := ParseCursor(encodeCursor(`["created.desc", 1795439674165274, "k"]`))
	require.NoError(t, err)
	require.Equal(t, &Cursor{Order: "created.desc", Micros: &micros, Key: "k"}, c)
}

func FuzzParseCursor(f *testing.F) {
	f.Add(encodeCursor(`["key.asc",null,"k"]`))
	f.Add(encodeCursor(`["updated.desc",1,"\ud800"]`))
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCursor(text)
		if err != nil {
			require.Equal(t, CodeInvalidInput, CodeOf(err))
			return
		}
		require.NoError(t, ListQuery{Order: c.Order, After: c}.Validate(), "a cursor that was accepted must be usable")
	})
}

func TestListQueriesBeyondALimitAreRefused(t *testing.T) {
	number := func(n int) *int { return &n }
	for name, q := range map[string]ListQuery{
		"NULInPrefix":       {Prefix: "\x00"},
		"LimitZero":         {Limit: number(0)},
		"LimitAbove":        {Limit: number(MaxLimit + 1)},
		"NegativeOffset":    {Offset: number(-1)},
		"OffsetAndCursor":   {Offset: number(0), After: &Cursor{}},
		"CursorOfAnother":   {Order: OrderByKey, After: &Cursor{Order: "key.desc", Key: "k"}},
		"IndexWithoutColon": {Indexes: []string{"abc"}},
		"IndexWithoutKey":   {Indexes: []string{":abc"}},
		"IndexNoMember":     {Indexes: []string{"abc:"}},
		"IndexTwoColons":    {Indexes: []string{"::"}},
		"NULInIndex":        {Indexes: []string{"a:\x00"}},
		"NULInIndexKey":     {IndexKeys: []string{"\x00"}},
		"LongIndex":         {Indexes: []string{"a:" + strings.Repeat("b", MaxKeyBytes-1)}},
		"LongIndexKey":      {IndexKeys: []string{strings.Repeat("b", MaxKeyBytes+1)}},
		"ManyFilters":       {Indexes: make([]string, MaxFilters), IndexKeys: []string{"a"}},
	} {
		require.Equal(t, CodeInvalidInput, CodeOf(q.Validate()), name)
	}
	require.NoError(t, ListQuery{Indexes: []string{"a:" + strings.Repeat("b", MaxKeyBytes-2)}, IndexKeys: []string{strings.Repeat("b", MaxKeyBytes)}}.Validate())
	require.NoError(t, ListQuery{Indexes: []string{"a::", "::b", "a:b", ":::"}}.Validate())
}

func TestAnErrorKeepsTheCauseForTheLogOnly(t *testing.T) {
	cause := errors.New("cause")
	err := fmt.Errorf("wrapped: %w", &Error{Code: CodeTooLarge, Message: "message", Op: "operation", Err: cause})
	require.Equal(t, "wrapped: operation: too_large: message: cause", err.Error())
	require.ErrorIs(t, err, cause)
	require.Equal(t, CodeTooLarge, CodeOf(err))
	require.Equal(t, CodeInternal, CodeOf(cause))
	require.Equal(t, Code(""), CodeOf(nil))
}

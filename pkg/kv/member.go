package kv

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Member is a member of an index: a JSON string or a JSON number, in the one form that everything but callers uses: kv.member,
// kv.posting and kv_store.index_pairs, requests to the database, copies and the metadata of blobs.
//
// A string is its text and a number is U+0001 and its spelling, so that 5 and "5" are two members and 5 and 5.0 as well. A string
// that begins with U+0001 itself gets one more in front: no string has the form of a number. So nearly every member is its own text,
// at no cost in space or time; the member's JSON text would take two bytes more in each of four places. The database has the same
// rule in kv.member_from_json and its siblings.
type Member string

const numberMark = "\x01"

// TextMember is the member that is a string.
func TextMember(text string) Member {
	if strings.HasPrefix(text, numberMark) {
		return Member(numberMark + text)
	}
	return Member(text)
}

// NumberMember is the member that is a number, as it is spelled in JSON.
func NumberMember(spelling string) Member { return Member(numberMark + spelling) }

// ParseMember reads the member from a valid JSON text without space around it: a string or a number. It is not ok for other texts and for a string that
// Postgres cannot hold: one with U+0000 or half of a surrogate pair.
func ParseMember(text string) (m Member, ok bool) {
	if isNumberText(text) {
		return NumberMember(text), true
	}
	s, ok := Unquote(text)
	if !ok || !isText(s) {
		return "", false
	}
	return TextMember(s), true
}

// isNumberText tells whether a valid JSON text is that of a number.
func isNumberText(text string) bool {
	return text != "" && (text[0] == '-' || '0' <= text[0] && text[0] <= '9')
}

// ParseMembers are the strings and numbers of a JSON array that can be members, in order. It is not an array for other texts.
func ParseMembers(text string) (members []Member, isArray bool) {
	var elements []json.RawMessage
	if json.Unmarshal([]byte(text), &elements) != nil || elements == nil {
		return nil, false
	}
	for _, element := range elements {
		if m, ok := ParseMember(string(element)); ok {
			members = append(members, m)
		}
	}
	return members, true
}

// IsNumber tells whether the member is a number.
func (m Member) IsNumber() bool {
	return strings.HasPrefix(string(m), numberMark) && !strings.HasPrefix(string(m[len(numberMark):]), numberMark)
}

// Spelling is what stands for the member in "<key>:<member>": the string's text, or the number as it is spelled.
func (m Member) Spelling() string { return strings.TrimPrefix(string(m), numberMark) }

// AppendJSON appends the member as JSON.
func (m Member) AppendJSON(dst []byte) []byte {
	if m.IsNumber() {
		return append(dst, m.Spelling()...)
	}
	return AppendString(dst, m.Spelling())
}

// IsZero tells whether a JSON number is one that JavaScript takes for false, as an old caller's member or key: 0, -0.0, 1e-400.
func IsZero(number string) bool {
	value, _ := strconv.ParseFloat(number, 64) // infinite where it is too large, as in JavaScript
	return value == 0
}

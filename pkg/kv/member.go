package kv

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Member is a member of an index, a JSON string or number, in the form that the database, the metadata of blobs and
// this code use.
//
// A string is its text, and a number is U+0001 and its JSON text. So 5 and "5" are two members, as are 5 and 5.0. A
// string that begins with U+0001 has one more in front. Nearly every member is therefore its own text, which costs
// nothing; its JSON text would take two more bytes in each of four places. The database follows the same rule
// (kv.member_from_json).
type Member string

const numberMark = "\x01"

// TextMember returns the member for a string.
func TextMember(text string) Member {
	if strings.HasPrefix(text, numberMark) {
		return Member(numberMark + text)
	}
	return Member(text)
}

// NumberMember returns the member for a number, which is given as JSON text.
func NumberMember(text string) Member { return Member(numberMark + text) }

// ParseMember reads a member from valid JSON text without space around it. It is not ok for anything but a number or
// a string, nor for a string that Postgres cannot store: with U+0000 or half of a surrogate pair.
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

// isNumberText reports whether valid JSON text is a number.
func isNumberText(text string) bool {
	return text != "" && (text[0] == '-' || '0' <= text[0] && text[0] <= '9')
}

// ParseMembers returns the elements of a JSON array that can be members, in order. isArray is false for any other
// text.
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

// IsNumber reports whether the member is a number.
func (m Member) IsNumber() bool {
	return strings.HasPrefix(string(m), numberMark) && !strings.HasPrefix(string(m[len(numberMark):]), numberMark)
}

// Text returns the member as it stands in "<key>:<member>": a string's text, or a number's JSON text.
func (m Member) Text() string { return strings.TrimPrefix(string(m), numberMark) }

// AppendJSON appends the member as JSON.
func (m Member) AppendJSON(dst []byte) []byte {
	if m.IsNumber() {
		return append(dst, m.Text()...)
	}
	return AppendString(dst, m.Text())
}

// IsZero reports whether a JSON number is 0 to JavaScript, which takes it for false: 0, -0.0, 1e-400.
func IsZero(number string) bool {
	value, _ := strconv.ParseFloat(number, 64) // infinite for a number that is too large, as in JavaScript
	return value == 0
}

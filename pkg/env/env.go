// Package env reads the environment's variables, all of them in the same way.
//
// Space around a value and a pair of quotes around it, as pasting from a shell's line or from a file with KEY="value" leaves them, are
// not part of it. A variable that is empty then counts as not set. What a value means is taken where it is plain, in any case of letters;
// anything else is an error that names the variable and what it must be, and never repeats the value, which may be a secret in the
// wrong place.
package env

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Text is the value of a variable, "" where it is not set.
func Text(name string) string { return Clean(os.Getenv(name)) }

// Clean takes off what pasting leaves around a value.
func Clean(value string) string {
	value = trim(value)
	for _, quote := range []string{`"`, `'`} {
		inner, ok := strings.CutPrefix(value, quote)
		if inner, isPair := strings.CutSuffix(inner, quote); ok && isPair && !strings.Contains(inner, quote) {
			return trim(inner)
		}
	}
	return value
}

// trim takes off space, including characters that are not seen: a byte order mark, a space without width.
func trim(value string) string {
	return strings.TrimFunc(value, func(r rune) bool { return unicode.IsSpace(r) || r == '\uFEFF' || r == '\u200B' })
}

// Or is the value of a variable, or another one where it is not set.
func Or(name, otherwise string) string {
	if value := Text(name); value != "" {
		return value
	}
	return otherwise
}

// Bool reads true or false, and what else plainly means either: 1, t, yes, y, on; 0, f, no, n, off.
func Bool(name string, otherwise bool) (bool, error) {
	text := Text(name)
	if text == "" {
		return otherwise, nil
	}
	value, ok := ParseBool(text)
	if !ok {
		return otherwise, errors.New(name + " must be true or false")
	}
	return value, nil
}

// ParseBool reads a value as [Bool] does; not ok where its meaning is not plain.
func ParseBool(text string) (value, ok bool) {
	switch strings.ToLower(Clean(text)) {
	case "true", "t", "1", "yes", "y", "on":
		return true, true
	case "false", "f", "0", "no", "n", "off":
		return false, true
	}
	return false, false
}

// Number reads a number from least to most; must says what it must be.
func Number[T int | int64 | float64](name string, otherwise, least, most T, must string) (T, error) {
	text := Text(name)
	if text == "" {
		return otherwise, nil
	}
	number, err := parse[T](text)
	if err != nil || !(number >= least && number <= most) { // false of NaN
		return otherwise, errors.New(name + " must be " + must)
	}
	return number, nil
}

func parse[T int | int64 | float64](text string) (T, error) {
	var zero T
	if _, isFloat := any(zero).(float64); isFloat {
		number, err := strconv.ParseFloat(text, 64)
		return T(number), err
	}
	number, err := strconv.ParseInt(text, 10, strconv.IntSize)
	return T(number), err
}

// Duration reads a time from least on, as Go writes it or as a number of seconds; must says what it must be.
func Duration(name string, otherwise, least time.Duration, must string) (time.Duration, error) {
	text := Text(name)
	if text == "" {
		return otherwise, nil
	}
	duration, err := parseDuration(text)
	if err != nil || duration < least {
		return otherwise, errors.New(name + " must be " + must)
	}
	return duration, nil
}

func parseDuration(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return time.ParseDuration(strconv.FormatFloat(seconds, 'f', -1, 64) + "s")
	}
	return time.ParseDuration(strings.ToLower(text))
}

// List takes a value apart that has commas between its parts.
func List(name string) (parts []string) {
	for _, part := range strings.Split(Text(name), ",") {
		if part = trim(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

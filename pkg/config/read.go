package config

import (
	"encoding"
	"errors"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Read fills a group, which is a pointer to one of this package's structs, from getenv.
//
// Space around a value and a pair of quotes around it, as pasting from a shell's line or from a file with KEY="value"
// leaves them, are not part of it. A variable that is empty then counts as not set. A value whose meaning is plain is
// taken, in any case of letters. The error names the first variable whose meaning is not, which has its default then,
// and says what it must be. It never repeats the value, which may be a secret in the wrong place.
func Read(group any, getenv func(string) string) error {
	var first error
	for _, v := range variables(reflect.ValueOf(group).Elem()) {
		if err := v.read(getenv); first == nil {
			first = err
		}
	}
	return first
}

// Names are the names of the variables of a group, a struct of this package.
func Names(group any) (names []string) {
	for _, v := range variables(addressable(group)) {
		names = append(names, v.name)
	}
	return names
}

// Secrets are those of [Names] whose values no log and no report may show.
func Secrets(group any) (names []string) {
	for _, v := range variables(addressable(group)) {
		if v.tag.Get("secret") != "" {
			names = append(names, v.name)
		}
	}
	return names
}

// variable is one field of a group.
type variable struct {
	name  string
	tag   reflect.StructTag
	field reflect.Value
}

func addressable(group any) reflect.Value {
	value := reflect.New(reflect.TypeOf(group)).Elem()
	value.Set(reflect.ValueOf(group))
	return value
}

func variables(group reflect.Value) (list []variable) {
	for i := range group.NumField() {
		if field := group.Type().Field(i); field.Anonymous {
			list = append(list, variables(group.Field(i))...)
		} else {
			list = append(list, variable{field.Tag.Get("env"), field.Tag, group.Field(i)})
		}
	}
	return list
}

func (v variable) read(getenv func(string) string) error {
	if text := v.tag.Get("default"); text != "" {
		if err := v.set(v.field, text); err != nil {
			return err
		}
	}
	for _, name := range []string{v.name, v.tag.Get("alias")} {
		raw := getenv(name)
		if raw == "" || Clean(raw) == "" && v.field.Type() != reflect.TypeFor[Tokens]() {
			continue
		}
		v.name = name
		return v.set(v.field, raw)
	}
	return nil
}

// set parses a value into the field.
func (v variable) set(field reflect.Value, raw string) error {
	if field.Kind() == reflect.Pointer { // nil while the variable is not set
		value := reflect.New(field.Type().Elem())
		err := v.set(value.Elem(), raw)
		if err == nil {
			field.Set(value)
		}
		return err
	}
	text, understood := Clean(raw), true
	switch to := field.Addr().Interface().(type) {
	case encoding.TextUnmarshaler:
		if err := to.UnmarshalText([]byte(raw)); err != nil {
			return errors.New(v.name + " " + err.Error())
		}
	case *string:
		*to = text
	case *[]string:
		*to = split(text)
	case *bool:
		understood = assign(v, to, text, parseBool, func(bool, bool) bool { return true })
	case *int:
		understood = assign(v, to, text, strconv.Atoi, atMost)
	case *int64:
		understood = assign(v, to, text, func(text string) (int64, error) { return strconv.ParseInt(text, 10, 64) }, atMost)
	case *float64:
		understood = assign(v, to, text, func(text string) (float64, error) { return strconv.ParseFloat(text, 64) }, atMost)
	case *time.Duration:
		understood = assign(v, to, text, parseDuration, atMost)
	default:
		panic("config: a variable cannot be a " + field.Type().String())
	}
	if !understood {
		must := v.tag.Get("must")
		if must == "" {
			must = "true or false"
		}
		return errors.New(v.name + " must be " + must)
	}
	return nil
}

// assign parses a value with bounds, and reports whether it could be understood.
func assign[T any](v variable, to *T, text string, parse func(string) (T, error), atMost func(a, b T) bool) bool {
	value, err := parse(text)
	if err != nil {
		return false
	}
	if least, err := parse(v.tag.Get("min")); err == nil && !atMost(least, value) {
		return false
	}
	if most, err := parse(v.tag.Get("max")); err == nil && !atMost(value, most) {
		return false
	}
	*to = value
	return true
}

// atMost is false of a NaN.
func atMost[T int | int64 | float64 | time.Duration](a, b T) bool { return a <= b }

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

// split takes a value apart that has commas between its parts.
func split(text string) (parts []string) {
	for _, part := range strings.Split(text, ",") {
		if part = trim(part); part != "" {
			parts = append(parts, part)
		}
	}
	return parts
}

var errNotPlain = errors.New("its meaning is not plain")

// parseBool reads true or false, and what else plainly means either.
func parseBool(text string) (bool, error) {
	switch strings.ToLower(text) {
	case "true", "t", "1", "yes", "y", "on":
		return true, nil
	case "false", "f", "0", "no", "n", "off":
		return false, nil
	}
	return false, errNotPlain
}

// parseDuration reads a time as Go writes it, or as a number of seconds.
func parseDuration(text string) (time.Duration, error) {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		return time.ParseDuration(strconv.FormatFloat(seconds, 'f', -1, 64) + "s")
	}
	return time.ParseDuration(strings.ToLower(text))
}

// Tokens are those of a variable that has commas between them. They are nil where it is not set. Set without any, as
// to a comma or a space, they are empty: what they protect is closed then.
type Tokens []string

// UnmarshalText takes the value apart. It never fails.
func (t *Tokens) UnmarshalText(text []byte) error {
	*t = Tokens{}
	for _, token := range split(Clean(string(text))) {
		if token = Clean(token); token != "" {
			*t = append(*t, token)
		}
	}
	return nil
}

// PlainText is a value of visible ASCII characters, as a token or an id is.
type PlainText string

// UnmarshalText refuses what pasting has spoilt.
func (t *PlainText) UnmarshalText(text []byte) error {
	value := Clean(string(text))
	if strings.ContainsFunc(value, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("holds characters that none has: paste it again")
	}
	*t = PlainText(value)
	return nil
}

// Address is the address of a server.
type Address string

// UnmarshalText wants one of HTTP.
func (a *Address) UnmarshalText(text []byte) error {
	value := Clean(string(text))
	if u, err := url.Parse(value); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("must be an address like https://api.netlify.com")
	}
	*a = Address(value)
	return nil
}

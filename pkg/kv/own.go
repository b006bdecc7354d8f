package kv

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// own reads the value of a condition on one of [OwnFields]: strings, or milliseconds since 1970 where it is a time. The error begins
// with the name of a field, as [Condition.validate]'s does.
func (c Condition) own() (values []any, err error) {
	texts := []json.RawMessage{json.RawMessage(c.Value)}
	if c.Op == OpIn && json.Unmarshal(texts[0], &texts) != nil {
		return nil, fmt.Errorf("value must be an array for in")
	}
	for _, text := range texts {
		var s *string
		if json.Unmarshal(text, &s) != nil || s == nil {
			return nil, fmt.Errorf("value must be of text for %s, got %s", c.By, excerpt(string(text)))
		}
		if c.By == "key" || c.Op == OpContains {
			values = append(values, *s)
			continue
		}
		at, ok := parseTime(*s)
		if !ok {
			return nil, fmt.Errorf("value must be a time like 2026-11-23T07:00:00.000Z or a day like 2026-11-23 for %s, got %s", c.By, quote(*s))
		}
		values = append(values, at.UnixMilli())
	}
	return values, nil
}

// arg expects a valid condition.
func (c Condition) arg() conditionArg {
	arg := conditionArg{By: c.By, Path: c.Path, Op: c.Op, Value: json.RawMessage(c.Value)}
	switch {
	case c.By == "":
		arg.By = "path"
	case c.Op == OpExists:
	default:
		values, _ := c.own()
		if c.Op == OpIn {
			arg.Value = json.RawMessage(encodeArgs(append([]any{}, values...)))
		} else {
			arg.Value = json.RawMessage(encodeArgs(values[0]))
		}
	}
	return arg
}

// timeLayouts are the forms of ISO 8601 that people and programs write. A fraction of a second may follow the seconds.
var timeLayouts = []string{"2006-01-02T15:04:05Z07:00", "2006-01-02T15:04Z07:00", "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02", "2006-01"}

// parseTime reads a time in ISO form, in UTC where it names no zone.
func parseTime(text string) (time.Time, bool) {
	for _, layout := range timeLayouts {
		if at, err := time.Parse(layout, text); err == nil && isTime(at.UnixMicro()) {
			return at, true
		}
	}
	if year, err := strconv.Atoi(text); err == nil && len(text) == 4 && year > 0 {
		return time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC), true
	}
	return time.Time{}, false
}

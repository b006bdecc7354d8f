package kv

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// changes is a response of the database's change feed (kv_changes): what changed since an earlier cursor.
type changes struct {
	// Cursor stands for everything that was visible to the feed: "<epoch>/<milliseconds>/<snapshot>".
	Cursor string
	// All means that anything may have changed.
	All bool
	// Keys are the changed keys, sorted, unless All is set.
	Keys []string
}

// UnmarshalJSON implements [json.Unmarshaler]. It refuses an object that lacks a field: its cursor could not be
// trusted.
func (c *changes) UnmarshalJSON(text []byte) error {
	var fields struct {
		Cursor string
		All    *bool
		Keys   *[]string
	}
	switch err := json.Unmarshal(text, &fields); {
	case err != nil:
		return err
	case fields.Cursor == "" || fields.All == nil || fields.Keys == nil:
		return errors.New("the change feed lacks a field")
	}
	slices.Sort(*fields.Keys)
	*c = changes{fields.Cursor, *fields.All, *fields.Keys}
	return nil
}

// cutChanges splits a response into the change feed's line and the body after it.
func cutChanges(function, text string, c *changes) (body string, err error) {
	feed, body, found := strings.Cut(text, "\n")
	if !found {
		return "", malformedResponse(function)
	}
	return body, decodeResponse(function, feed, c)
}

// touches reports whether a result with the scope may have changed.
func (c changes) touches(s scope) bool {
	if c.All {
		return true
	}
	i, found := slices.BinarySearch(c.Keys, s.text)
	if s.one {
		return found
	}
	return i < len(c.Keys) && strings.HasPrefix(c.Keys[i], s.text) // in byte order, the keys with a prefix follow it
}

// bootDigits is the length of kv.boot_id(), with which an epoch begins.
const bootDigits = 8

// covers reports whether what was visible at the cursor includes the write with the version ("<boot>.<transaction
// id>"). False means that it is not known.
//
// A snapshot, "<xmin>:<xmax>:<xip>,…", sees the top-level transactions below xmax that were not in progress (xip); see
// pg_current_snapshot in Postgres's documentation.
func covers(cursor, version string) bool {
	boot, transactionID, _ := strings.Cut(version, ".")
	parts := strings.Split(cursor, "/")
	if len(parts) != 3 || len(boot) != bootDigits || !strings.HasPrefix(parts[0], boot) {
		return false
	}
	snapshot := strings.Split(parts[2], ":")
	if len(snapshot) != 3 {
		return false
	}
	id, err := strconv.ParseUint(transactionID, 10, 64)
	end, endErr := strconv.ParseUint(snapshot[1], 10, 64)
	if err != nil || endErr != nil || id >= end {
		return false
	}
	return !slices.Contains(strings.Split(snapshot[2], ","), strconv.FormatUint(id, 10))
}

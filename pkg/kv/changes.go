package kv

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// changes is what the database's change feed (kv_changes) tells: what changed since an earlier cursor.
type changes struct {
	// Cursor stands for everything that was visible when the feed was asked: "<epoch>/<milliseconds>/<snapshot>".
	Cursor string
	// All: everything may have changed.
	All bool
	// Keys are the keys that changed otherwise.
	Keys []string
}

// parseChanges reads a feed's answer. It is not ok for anything else, whose cursor could not be trusted.
func parseChanges(text string) (c changes, ok bool) {
	var told struct {
		Cursor string
		All    *bool
		Keys   *[]string
	}
	if json.Unmarshal([]byte(text), &told) != nil || told.Cursor == "" || told.All == nil || told.Keys == nil {
		return changes{}, false
	}
	slices.Sort(*told.Keys)
	return changes{told.Cursor, *told.All, *told.Keys}, true
}

// touches tells whether the change concerns an answer with the scope.
func (c changes) touches(s scope) bool {
	if c.All {
		return true
	}
	i, found := slices.BinarySearch(c.Keys, s.text)
	if s.one {
		return found
	}
	return i < len(c.Keys) && strings.HasPrefix(c.Keys[i], s.text) // keys with a prefix follow it at once in byte order
}

// bootDigits is the length of kv.boot_id(), with which an epoch begins.
const bootDigits = 8

// covers reports whether what was visible at the cursor includes the write with the version ("<boot>.<transaction id>").
// False means that it is not known.
//
// A snapshot, "<xmin>:<xmax>:<xip>,…", sees a transaction that began before xmax unless it was running then (xip):
// Postgres' documentation of pg_current_snapshot, which names top-level transactions as versions do.
func covers(cursor, version string) bool {
	boot, stamp, _ := strings.Cut(version, ".")
	parts := strings.Split(cursor, "/")
	if len(parts) != 3 || len(boot) != bootDigits || !strings.HasPrefix(parts[0], boot) {
		return false
	}
	snapshot := strings.Split(parts[2], ":")
	if len(snapshot) != 3 {
		return false
	}
	id, err := strconv.ParseUint(stamp, 10, 64)
	end, endErr := strconv.ParseUint(snapshot[1], 10, 64)
	if err != nil || endErr != nil || id >= end {
		return false
	}
	return !slices.Contains(strings.Split(snapshot[2], ","), strconv.FormatUint(id, 10))
}

package kv

import (
	"errors"
	"strconv"
	"strings"
)

// RowRevision identifies what an entry was at one moment. It grows with every write of the entry and with every member
// that is added to an index entry. The zero value means that there was no entry.
type RowRevision struct {
	Database string // identifies the database; revisions of different databases have no order
	Version  int64  // counts the writes of the row
	Members  int64  // of an index entry, the number of its members, which only grows while Version stays; otherwise 0
}

// ParseRowRevision reads what [RowRevision.String] writes, which is the form that the database uses.
func ParseRowRevision(text string) (RowRevision, error) {
	if text == "" {
		return RowRevision{}, nil
	}
	parts := strings.Split(text, ".")
	if len(parts) != 3 || parts[0] == "" {
		return RowRevision{}, errRowRevision
	}
	version, versionErr := strconv.ParseInt(parts[1], 10, 64)
	members, membersErr := strconv.ParseInt(parts[2], 10, 64)
	if versionErr != nil || membersErr != nil {
		return RowRevision{}, errRowRevision
	}
	return RowRevision{Database: parts[0], Version: version, Members: members}, nil
}

var errRowRevision = errors.New("a row revision must be <database>.<version>.<members>")

// String returns "<database>.<version>.<members>", or "" for the zero value.
func (r RowRevision) String() string {
	if r.IsZero() {
		return ""
	}
	return r.Database + "." + strconv.FormatInt(r.Version, 10) + "." + strconv.FormatInt(r.Members, 10)
}

// IsZero reports whether there was no entry.
func (r RowRevision) IsZero() bool { return r == RowRevision{} }

// Before reports whether r is older than other. Revisions that cannot be compared count as older: either side may be
// zero, or the database may have been replaced.
func (r RowRevision) Before(other RowRevision) bool {
	if r.Database != other.Database {
		return true
	}
	return r.Version < other.Version || r.Version == other.Version && r.Members < other.Members
}

// SameRow reports whether both revisions are of the same write of an entry, between which only members can have been
// added.
func (r RowRevision) SameRow(other RowRevision) bool {
	return !r.IsZero() && r.Database == other.Database && r.Version == other.Version
}

// MarshalText implements [encoding.TextMarshaler].
func (r RowRevision) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (r *RowRevision) UnmarshalText(text []byte) (err error) {
	*r, err = ParseRowRevision(string(text))
	return err
}

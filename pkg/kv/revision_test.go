package kv

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRowRevisionOrder(t *testing.T) {
	for name, c := range map[string]struct {
		revision, other string
		before, sameRow bool
	}{
		"Same":           {"d.5.2", "d.5.2", false, true},
		"MoreMembers":    {"d.5.2", "d.5.10", true, true},
		"FewerMembers":   {"d.5.10", "d.5.2", false, true},
		"LaterVersion":   {"d.5.2", "d.10.0", true, false},
		"EarlierVersion": {"d.10.0", "d.5.2", false, false},
		"OtherDatabase":  {"d.10.0", "e.5.2", true, false},
		"NoEntry":        {"", "d.5.2", true, false},
		"BothNoEntry":    {"", "", false, false},
	} {
		revision, err := ParseRowRevision(c.revision)
		require.NoError(t, err, name)
		other, err := ParseRowRevision(c.other)
		require.NoError(t, err, name)
		require.Equal(t, c.before, revision.Before(other), name)
		require.Equal(t, c.sameRow, revision.SameRow(other), name)
		require.Equal(t, c.revision, revision.String(), name)
	}
	for _, text := range []string{"d", "d.1", ".1.2", "d.x.2", "d.1.x", "d.1.2.3", "d.9223372036854775808.0"} {
		_, err := ParseRowRevision(text)
		require.Error(t, err, text)
	}
}

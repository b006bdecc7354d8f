package kv

import (
	"fmt"
	"slices"
	"strings"
)

// IndexFilter is a group, which holds when all of All do, one of Any and none of None; or it is one index: Pair or Exact.
type IndexFilter struct {
	All  []IndexFilter `json:"all,omitempty"`
	Any  []IndexFilter `json:"any,omitempty"`
	None []IndexFilter `json:"none,omitempty"`

	// Pair is "<key>:<member>", matching every pair of key and member that is written so.
	Pair string `json:"pair,omitzero"`
	// Exact matches one pair, or with an empty Member any member of the index.
	Exact Index `json:"exact,omitzero"`
}

// validateIndexFilters checks the filters of a query.
func validateIndexFilters(indexes, indexKeys *IndexFilter) error {
	var found []IndexFilter
	for i, filter := range []*IndexFilter{indexes, indexKeys} {
		if filter == nil {
			continue
		}
		if err := filter.validate([]string{"indexes", "indexKeys"}[i], 1, &found); err != nil {
			return err
		}
	}
	if len(found) > MaxFilters {
		return Invalid("indexes and indexKeys may name %d indexes together, got %d", MaxFilters, len(found))
	}
	var pairs []string
	for _, f := range found {
		if f.Pair != "" {
			pairs = append(pairs, f.Pair)
		}
	}
	if n := candidatePairs(pairs); n > MaxCandidatePairs {
		return Invalid(`indexes may be read as %d pairs of key and member together, got %d, one for each colon: name the pair as {"key":…,"member":…}`, MaxCandidatePairs, n)
	}
	return nil
}

// validate checks a filter that errors call by its position, as in indexes.any[0], and adds the indexes that it names to found.
func (f *IndexFilter) validate(position string, depth int, found *[]IndexFilter) error {
	isIndex := f.Pair != "" || f.Exact != Index{}
	size := len(f.All) + len(f.Any) + len(f.None)
	switch {
	case isIndex && (size > 0 || f.Pair != "" && f.Exact != Index{}):
		return Invalid("%s must be either a group or one index", position)
	case isIndex:
		*found = append(*found, *f)
		return f.validateIndex(position)
	case depth > MaxGroupDepth:
		return Invalid("%s: groups must be nested at most %d levels deep", position, MaxGroupDepth)
	case f.Any != nil && len(f.Any) == 0:
		return Invalid("%s.any must not be empty: nothing could match", position)
	case size == 0 && depth > 1:
		return Invalid("%s must not be an empty group", position)
	}
	for i, filters := range [][]IndexFilter{f.All, f.Any, f.None} {
		for j := range filters {
			at := fmt.Sprintf("%s.%s[%d]", position, []string{"all", "any", "none"}[i], j)
			if err := filters[j].validate(at, depth+1, found); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *IndexFilter) validateIndex(position string) error {
	switch {
	case f.Pair != "":
		return validatePair(position, f.Pair)
	case f.Exact.Key == "":
		return Invalid("%s must name an index", position)
	case f.Exact.Member != "":
		return validateFilter(position, f.Exact.String())
	}
	return validateFilter(position, f.Exact.Key)
}

// IsPair reports whether a text can be "<key>:<member>": there is a colon with something on both sides.
func IsPair(text string) bool { return len(text) > 2 && strings.Contains(text[1:len(text)-1], ":") }

func validatePair(name, pair string) error {
	if !IsPair(pair) {
		return Invalid(`%s must be "<key>:<member>", got %s`, name, quote(pair))
	}
	return validateFilter(name, pair)
}

func validateFilter(name, filter string) error {
	if len(filter) > MaxKeyBytes {
		return Invalid("%s must be at most %d bytes, got %d", name, MaxKeyBytes, len(filter))
	}
	return validateText(name, filter)
}

// candidatePairs counts the pairs of key and member that different "<key>:<member>" texts may be read as.
func candidatePairs(pairs []string) (n int) {
	for _, pair := range slices.Compact(slices.Sorted(slices.Values(pairs))) {
		n += strings.Count(pair[1:len(pair)-1], ":")
	}
	return n
}

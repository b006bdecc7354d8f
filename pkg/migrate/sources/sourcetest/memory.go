// Package sourcetest gives a test a Netlify site of its own, and a source whose blobs are in memory.
package sourcetest

import (
	"context"
	"iter"
	"maps"
	"slices"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/migrate/sources"
)

// Memory is a source whose blobs are in memory.
type Memory struct {
	Items []sources.Item
	Each  func(n int) error // before each item
}

// Name implements [sources.Source].
func (m *Memory) Name() string { return "fake" }

// StoreName implements [sources.Source].
func (m *Memory) StoreName() string { return kv.DefaultStore }

// List implements [sources.Source].
func (m *Memory) List(context.Context) iter.Seq2[blobs.Listed, error] {
	return func(yield func(blobs.Listed, error) bool) {
		for _, item := range m.Items {
			if !yield(item.Listed, nil) {
				return
			}
		}
	}
}

// Read implements [sources.Source].
func (m *Memory) Read(ctx context.Context, list iter.Seq2[blobs.Listed, error]) iter.Seq2[sources.Item, error] {
	return func(yield func(sources.Item, error) bool) {
		n := 0
		for listed, err := range list {
			item := sources.Item{Listed: listed, Missing: true}
			if at := slices.IndexFunc(m.Items, func(item sources.Item) bool { return item.Key == listed.Key }); at >= 0 {
				item = m.Items[at]
			}
			if err == nil && m.Each != nil {
				err = m.Each(n)
			}
			if err == nil {
				err = ctx.Err()
			}
			if !yield(item, err) || err != nil {
				return
			}
			n++
		}
	}
}

// NewMemory returns a source with these values by key.
func NewMemory(values map[string]string) *Memory {
	m := &Memory{}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		m.Items = append(m.Items, Item(key, values[key]))
	}
	return m
}

// Item is a blob that can be read.
func Item(key, value string) sources.Item {
	return sources.Item{Listed: blobs.Listed{Key: key, Size: int64(len(value))}, Blob: blobs.Blob{Value: []byte(value), ETag: "e"}}
}

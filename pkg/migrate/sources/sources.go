// Package sources reads the entries that a migration brings: those of Netlify Blobs, or of a table.
//
// A [Source] lists its blobs in any order. A [Listing] has them in the order of their keys, in bounded memory.
package sources

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"mime"
	"strings"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
)

// Item is a blob that was read.
type Item struct {
	blobs.Listed
	Blob    blobs.Blob
	Missing bool // it is gone
	// Metadata, ContentType and Expires are the entry's, as [kv.State] has them. The metadata of a blob of the store kv
	// is the functions' own, and not the entry's.
	Metadata, ContentType string
	Expires               int64
	// Indexes are the entry's, where the blob says so; nil: not known.
	Indexes          [][2]string
	Created, Updated int64 // microseconds since 1970, 0: the blob does not say
	IsIndex          bool  // it is known to be an index entry
	Err              error // why it cannot be read
}

// Source is where entries come from.
type Source interface {
	// Name tells sources apart, in the database and in reports. It has no secret.
	Name() string
	// StoreName is the store that the entries are of, and go to.
	StoreName() string
	// List gives all blobs, in any order.
	List(ctx context.Context) iter.Seq2[blobs.Listed, error]
	// Read gives an item for each blob, in the order of these, which is that of their keys.
	Read(ctx context.Context, list iter.Seq2[blobs.Listed, error]) iter.Seq2[Item, error]
}

// Describe sets the content type and the metadata that the entry of the blob has, in a store.
func (i *Item) Describe(store string) {
	i.ContentType = typeOf(i.Blob)
	if store != kv.DefaultStore && !blobs.SameMetadata(i.Blob.Metadata, "") {
		i.Metadata = i.Blob.Metadata
	}
}

// typeOf is the content type of a blob's entry, where it says more than the bytes do: services call bytes octet-stream
// of which they know no type, and fetch calls every string text/plain.
func typeOf(blob blobs.Blob) string {
	media, _, err := mime.ParseMediaType(blob.ContentType)
	isText := strings.Contains(media, "/") && !strings.ContainsFunc(blob.ContentType, func(c rune) bool { return c < ' ' || c > '~' })
	switch {
	case err != nil || !isText || len(blob.ContentType) > kv.MaxContentTypeBytes:
		return ""
	case media == kv.ContentTypeBytes, media == "binary/octet-stream", media == kv.ContentTypeJSON:
		return ""
	case media == "text/plain" && json.Valid(blob.Value):
		return ""
	}
	return blob.ContentType
}

// ErrEmpty: there is not one blob.
var ErrEmpty = errors.New("the source has no blobs at all: a wrong NETLIFY_SITE_ID or --store looks the same as an empty one. Nothing was changed")

// Requests is [Blobs.Requests] of a source that makes such requests, else 0.
func Requests(source Source) int {
	if asks, ok := source.(interface{ Requests() int }); ok {
		return asks.Requests()
	}
	return 0
}

// ReadOne reads a single blob.
func ReadOne(ctx context.Context, source Source, listed blobs.Listed) (Item, error) {
	for item, err := range source.Read(ctx, func(yield func(blobs.Listed, error) bool) { yield(listed, nil) }) {
		return item, err
	}
	return Item{}, ctx.Err()
}

// Progress is told how far a long piece of work is. Its methods may be called by several goroutines.
type Progress interface {
	// Stage begins with a name and how many things there are to do; -1: not known.
	Stage(name string, total int)
	// Done says that so many more are done, and how many of these failed.
	Done(n, failed int)
}

// NoProgress is a [Progress] that drops what it is told.
type NoProgress struct{}

// Stage implements [Progress].
func (NoProgress) Stage(string, int) {}

// Done implements [Progress].
func (NoProgress) Done(int, int) {}

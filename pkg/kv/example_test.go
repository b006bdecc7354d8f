package kv_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"netlify-supabase-kv/pkg/kv"
)

// openStore opens the project that the environment names. The errors of these examples show in what they print.
func openStore() *kv.Supabase {
	store, err := kv.NewSupabase(os.Getenv("SUPABASE_URL"), os.Getenv("SUPABASE_SERVICE_ROLE_KEY"))
	if err != nil {
		panic(fmt.Sprintf("these examples need a database: run `make test`, or `make up` and `set -a; . .local/env`: %v", err))
	}
	return store
}

// An entry comes back byte for byte, and each of its indexes is an entry that lists its members.
func Example() {
	ctx, store := context.Background(), openStore()
	_, err := store.Upsert(ctx, kv.Entry{
		Key:     "example/session/1",
		Value:   `{"user": "ann", "score": 1.0}`,
		Indexes: []kv.Index{{Key: "example/index/users", Member: kv.TextMember("ann")}},
	})
	fmt.Println(err)

	value, err := store.Get(ctx, "example/session/1")
	fmt.Println(value, err)
	list, err := store.List(ctx, kv.ListQuery{Prefix: "example/"})
	fmt.Println(list, err)

	for _, key := range []string{"example/session/1", "example/index/users", "example/session/2"} {
		written, err := store.Delete(ctx, key)
		fmt.Println(written.Existed, err)
	}
	// Output:
	// <nil>
	// {"user": "ann", "score": 1.0} <nil>
	// {"keys":["example/index/users","example/session/1"],"count":2} <nil>
	// true <nil>
	// true <nil>
	// false <nil>
}

// Every error has a stable code.
func ExampleCodeOf() {
	_, err := openStore().Get(context.Background(), "example/no-such-key")
	fmt.Println(kv.CodeOf(err))
	_, err = openStore().Get(context.Background(), "")
	fmt.Println(kv.CodeOf(err))
	_, err = kv.NewSupabase("example.supabase.co", "key")
	fmt.Println(kv.CodeOf(err))
	// Output:
	// not_found
	// invalid_input
	// not_configured
}

// A cache says where each result came from. A caller can ask for a result that is no older than its own write.
func ExampleCache() {
	ctx, store := context.Background(), openStore()
	config := kv.DefaultCache
	config.MaxStale = time.Minute
	cache := kv.NewCache(store, config)

	get := func(f kv.Freshness) {
		result, err := cache.Get(ctx, "example/cached", f)
		fmt.Println(result.Source, result.Body, err)
	}
	if _, err := store.Upsert(ctx, kv.Entry{Key: "example/cached", Value: `[1]`}); err != nil {
		fmt.Println(err)
	}
	get(kv.Freshness{})
	get(kv.Freshness{})
	written, err := store.Upsert(ctx, kv.Entry{Key: "example/cached", Value: `[2]`})
	if err != nil {
		fmt.Println(err)
	}
	get(kv.Freshness{})
	get(kv.Freshness{After: written.Version})
	if _, err := store.Delete(ctx, "example/cached"); err != nil {
		fmt.Println(err)
	}
	// Output:
	// miss [1] <nil>
	// hit [1] <nil>
	// hit [1] <nil>
	// miss [2] <nil>
}

// A query combines filters by index, by text and by the parts of a value.
func ExampleSupabase_Query() {
	ctx, store := context.Background(), openStore()
	for key, value := range map[string]string{"a": `{"score":5}`, "b": `{"score":15}`, "c": `{"score":25}`} {
		entry := kv.Entry{Key: "example/query/" + key, Value: value}
		if _, err := store.Upsert(ctx, entry); err != nil {
			fmt.Println(err)
		}
	}
	results, err := store.Query(ctx, kv.Query{
		Prefix: "example/query/",
		Where:  []kv.Condition{{Path: "score", Op: kv.OpGte, Value: []byte(`10`)}},
		Sort:   []kv.SortKey{{Path: "score", Descending: true}},
		Select: []kv.Field{"value.score"},
	})
	results, _, _ = strings.Cut(results, `,"pagination"`)
	fmt.Println(results, err)
	for _, key := range []string{"a", "b", "c"} {
		if _, err := store.Delete(ctx, "example/query/"+key); err != nil {
			fmt.Println(err)
		}
	}
	// Output:
	// {"results":[{"value.score":25},{"value.score":15}],"count":2 <nil>
}

// A pair has one text, but a text may stand for several pairs.
func ExampleIndex_String() {
	fmt.Println(kv.Index{Key: "a:b", Member: kv.TextMember("c")}, kv.Index{Key: "a", Member: kv.TextMember("b:c")})
	fmt.Println(kv.Index{Key: "a", Member: kv.NumberMember("5")}, kv.Index{Key: "a", Member: kv.TextMember("5")})
	// Output:
	// a:b:c a:b:c
	// a:5 a:5
}

// A search has branches, one of which must match, and each branch has terms, all of which must.
func ExampleParseSearch() {
	search, _ := kv.ParseSearch(`"green tea" or coff* -decaf`)
	for _, branch := range search {
		fmt.Printf("%+v\n", branch)
	}
	_, err := kv.ParseSearch(`-- !`)
	fmt.Println(err)
	// Output:
	// [{Text:green tea Not:false Prefix:false}]
	// [{Text:coff Not:false Prefix:true} {Text:decaf Not:true Prefix:false}]
	// invalid_input: search has no word in it, got "-- !": give letters or digits to look for
}

// Revisions of one database are ordered by their writes, and then by members that were added.
func ExampleRowRevision_Before() {
	old, _ := kv.ParseRowRevision("1f3a.7.2")
	grown, _ := kv.ParseRowRevision("1f3a.7.3")
	fmt.Println(old.Before(grown), grown.Before(old), old.SameRow(grown))
	// Output:
	// true false true
}

package schema

import (
	"context"
	"fmt"
	"testing"
)

// BenchmarkCalls measures calls in Postgres alone, on KV_SCHEMA_ENTRIES entries:
//
//	go test -run '^$' -bench . ./tests/schema
func BenchmarkCalls(b *testing.B) {
	n := number(b, "KV_SCHEMA_ENTRIES", 50_000)
	d := newDatabase(b)
	fillEntries(b, d, n)
	key := func(i int) string { return fmt.Sprintf("doc/%07d", 1+(i*7919)%n) }
	const value = `{"n":1,"title":"Entry number 1","body":"c4ca4238a0b923820dcc509a6f75849b c4ca4238a0b923820dcc509a6f75849b"}`
	cursor := changes(b, d.connect(b), nil).Cursor

	for _, c := range []struct {
		name      string
		sql       string
		arguments func(i int) []any
	}{
		{"Nothing", "select 1", func(int) []any { return nil }},
		{"UpsertNewWithTwoIndexes", "select public.kv_upsert($1, $2, $3)", func(i int) []any {
			return []any{fmt.Sprint("new/", i), value, [][]string{{"type", fmt.Sprint("t", i%10)}, {"owner", fmt.Sprint("u", i%500)}}}
		}},
		{"UpsertSameIndexes", "select public.kv_upsert($1, $2, $3)", func(i int) []any {
			return []any{fmt.Sprint("new/", i%100), value, [][]string{{"type", fmt.Sprint("t", i%10)}, {"owner", fmt.Sprint("u", i%100)}}}
		}},
		{"UpsertOtherIndexes", "select public.kv_upsert($1, $2, $3)", func(i int) []any {
			return []any{key(i), value, [][]string{{"type", fmt.Sprint("t", (i+1)%10)}, {"owner", fmt.Sprint("u", (i+1)%500)}}}
		}},
		{"UpsertWithoutIndexes", "select public.kv_upsert($1, $2)", func(i int) []any { return []any{fmt.Sprint("plain/", i), value} }},
		{"InsertIntoTheTable", "insert into public.kv_store (key, value) values ($1, $2::text::json) on conflict do nothing", func(i int) []any {
			return []any{fmt.Sprint("row/", i), value}
		}},
		{"Delete", "select public.kv_delete($1)", func(i int) []any { return []any{key(i)} }},
		{"Get", "select public.kv_get($1)", func(i int) []any { return []any{key(i)} }},
		{"List100Values", askList, func(i int) []any { return []any{aList(b, `"prefix":"`+key(i)[:8]+`","limit":100`), true} }},
		{"List100ByIndex", askList, func(i int) []any {
			return []any{aList(b, `"limit":100,`+byIndex([]string{fmt.Sprint("owner:u", i%500)}, nil)), true}
		}},
		{"Changes", "select public.kv_changes($1)", func(int) []any { return []any{cursor} }},
		{"ChangesOfNow", "select public.kv_changes(public.kv_changes()::json->>'cursor')", func(int) []any { return nil }},
	} {
		conn := d.connect(b)
		b.Run(c.name, func(b *testing.B) {
			for i := range b.N {
				if _, err := conn.Exec(context.Background(), c.sql, c.arguments(i)...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

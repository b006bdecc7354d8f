package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"netlify-supabase-kv/scripts/bench/report"
)

// StorageResult is the size on disk of entries with two indexes each, in bytes.
type StorageResult struct {
	Entries  int   `json:"entries"`
	JSON     int64 `json:"json"`     // the values
	Rows     int64 `json:"rows"`     // kv_store, with its TOAST table
	Indexes  int64 `json:"indexes"`  // of kv_store
	Postings int64 `json:"postings"` // kv.posting, with its index
	Members  int64 `json:"members"`  // kv.member, with its index
	Log      int64 `json:"log"`      // kv.log, with its indexes; its rows are removed after an hour
}

// Value returns the mean size of a value, in bytes.
func (s StorageResult) Value() int { return int(s.JSON) / max(s.Entries, 1) }

// Times returns the total size relative to the JSON.
func (s StorageResult) Times() float64 {
	return float64(s.Rows+s.Indexes+s.Postings+s.Members+s.Log) / float64(s.JSON)
}

// storageValues are the approximate sizes of values, in bytes.
var storageValues = []int{300, 1000, 4000}

// ErrNotEmpty is returned when the database has been used: removed entries have left free space in the tables, and
// compacting them would lock a database that people use.
var ErrNotEmpty = errors.New("kv_store is not empty")

// MeasureStorage writes a number of entries of each size under the prefix, measures and removes them. It needs an
// empty database, and otherwise returns [ErrNotEmpty].
func MeasureStorage(ctx context.Context, conn *pgx.Conn, prefix string, entries int) (results []StorageResult, err error) {
	var filled bool
	if err := conn.QueryRow(ctx, "select exists (select from public.kv_store)").Scan(&filled); err != nil {
		return nil, err
	} else if filled {
		return nil, ErrNotEmpty
	}
	for _, size := range storageValues {
		s, err := measureStorage(ctx, conn, prefix, entries, size)
		if err != nil {
			return nil, fmt.Errorf("values of %d bytes: %w", size, err)
		}
		results = append(results, s)
	}
	return results, nil
}

func measureStorage(ctx context.Context, conn *pgx.Conn, prefix string, entries, size int) (s StorageResult, err error) {
	before, err := storageOf(ctx, conn)
	if err != nil {
		return s, err
	}
	if _, err := conn.Exec(ctx, fillStorage, prefix, entries, size); err != nil {
		return s, err
	}
	if err := settle(ctx, conn); err != nil {
		return s, err
	}
	s, err = storageOf(ctx, conn)
	if err != nil {
		return s, err
	}
	s.Rows, s.Indexes, s.Postings = s.Rows-before.Rows, s.Indexes-before.Indexes, s.Postings-before.Postings
	s.Members, s.Log = s.Members-before.Members, s.Log-before.Log
	if err := conn.QueryRow(ctx, "select count(*) filter (where not is_index), sum(bytes) from public.kv_store where key >= $1 and key < kv.prefix_end($1)", prefix).Scan(&s.Entries, &s.JSON); err != nil {
		return s, err
	}
	if err := Remove(ctx, conn, prefix); err != nil {
		return s, err
	}
	for _, table := range []string{"public.kv_store", "kv.posting", "kv.member"} { // vacuum frees space in tables but not in their indexes
		if _, err := conn.Exec(ctx, "reindex table "+table); err != nil {
			return s, err
		}
	}
	return s, nil
}

// fillStorage upserts $2 entries with values of about $3 bytes, which compress like text.
const fillStorage = `
	select count(public.kv_upsert($1 || 'doc/' || lpad(i::text, 7, '0'),
		json_build_object(
			'user', 'user-' || lpad(i::text, 7, '0'), 'score', i, 'active', true, 'title', 'What a session of an app keeps', 'tags', json_build_array('draft', 'mobile', 'beta'),
			'body', (select string_agg('sentence ' || left(md5(i::text || n), 6) || ' of some text, as ' || i * n % 997 || ' people write', ', ')
				from generate_series(1, greatest(($3::integer - 130) / 50, 1)) as n))::text,
		array[array[$1 || 'owner', 'o' || i % ($2::integer / 100 + 1)], array[$1 || 'type', 't' || i % 10]]))
	from generate_series(1, $2::integer) as i`

func storageOf(ctx context.Context, conn *pgx.Conn) (s StorageResult, err error) {
	err = conn.QueryRow(ctx, `
		select pg_table_size('public.kv_store'), pg_indexes_size('public.kv_store'), pg_total_relation_size('kv.posting'),
			pg_total_relation_size('kv.member'), pg_total_relation_size('kv.log')`).Scan(&s.Rows, &s.Indexes, &s.Postings, &s.Members, &s.Log)
	return s, err
}

// StorageTable is the size of entries relative to their JSON.
func (r Results) StorageTable() report.Table {
	t := report.Table{Title: "Storage of entries with two indexes, in times of their JSON", Texts: 1,
		Header: []string{"mean value", "entries", "kv_store", "its indexes", "kv.posting", "kv.member", "kv.log", "together"}}
	for _, s := range r.Storage {
		part := func(bytes int64) string { return fmt.Sprintf("%.2f", float64(bytes)/float64(s.JSON)) }
		t.Rows = append(t.Rows, []string{report.Thousands(s.Value()) + " bytes", report.Thousands(s.Entries), part(s.Rows), part(s.Indexes), part(s.Postings), part(s.Members), part(s.Log),
			fmt.Sprintf("%.2f", s.Times())})
	}
	return t
}

package sources

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"netlify-supabase-kv/pkg/blobs"
	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/stream"
)

// Table is a table of somebody else's key-value store as a [Source]: a row an entry, with the columns key and value,
// and, where it has them, indexes ("<key>:<member>" strings), created_at and updated_at. Nothing is written to it.
//
// An index has no row of its own there, as a rule. Here it is an entry whose value is the array of its members, so
// the source has one for each index that has no row, in the order in which its members came.
type Table struct {
	name    string // schema.table
	quoted  string // for SQL
	pool    *pgxpool.Pool
	columns map[string]string // by name, their types

	mu   sync.Mutex
	made map[string][]byte // by key, the index entries that have no row
}

// NewTable returns the table, named as in "public.kv_store_old", of the database at the address, as in DATABASE_URL.
// It fails where there is no such table, or one that cannot be read as entries. Close it.
func NewTable(ctx context.Context, address, table string) (*Table, error) {
	schema, name, found := strings.Cut(table, ".")
	if !found || schema == "" || name == "" {
		return nil, fmt.Errorf("a table is named with its schema, as in public.kv_store_old, got %q", table)
	}
	config, err := pgxpool.ParseConfig(address)
	if err != nil {
		return nil, errors.New("DATABASE_URL is no address of a database, as in postgresql://postgres.<project>:<password>@<host>:5432/postgres")
	}
	// A pooler may give each statement another session, so nothing is prepared.
	config.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to DATABASE_URL: %w", err)
	}
	s := &Table{name: table, quoted: pgx.Identifier{schema, name}.Sanitize(), pool: pool}
	if err := s.check(ctx, schema, name); err != nil {
		pool.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the connections.
func (s *Table) Close() { s.pool.Close() }

// tableColumns are what a table may have, and the types that they may be of.
var tableColumns = map[string][]string{
	"key": {"text", "character varying"}, "value": {"json", "jsonb", "text"}, "indexes": {"text[]", "character varying[]"},
	"created_at": {"timestamp with time zone", "timestamp without time zone"}, "updated_at": {"timestamp with time zone", "timestamp without time zone"},
}

func (s *Table) check(ctx context.Context, schema, name string) error {
	rows, err := s.pool.Query(ctx, `
		select attname::text, format_type(atttypid, null) from pg_attribute
		where attrelid = (select c.oid from pg_class as c join pg_namespace as n on n.oid = relnamespace
			where nspname = $1 and relname = $2 and relkind in ('r', 'p')) and attnum > 0 and not attisdropped`, schema, name)
	if err != nil {
		return fmt.Errorf("look at the table %s: %w", s.name, err)
	}
	s.columns = map[string]string{}
	var column, kind string
	if _, err := pgx.ForEachRow(rows, []any{&column, &kind}, func() error { s.columns[column] = kind; return nil }); err != nil {
		return fmt.Errorf("look at the table %s: %w", s.name, err)
	}
	switch {
	case len(s.columns) == 0:
		return fmt.Errorf("there is no table %s in the database of DATABASE_URL", s.name)
	case s.columns["index_pairs"] != "":
		return fmt.Errorf("%s is this project's own table: name the one that its entries are to come from", s.name)
	}
	for column, kinds := range tableColumns {
		kind, found := s.columns[column]
		if !found && (column == "key" || column == "value") {
			return fmt.Errorf("the table %s has no column %s: entries are read from key and value", s.name, column)
		}
		if found && !slices.Contains(kinds, kind) {
			return fmt.Errorf("the column %s of %s is of the type %s: it must be %s", column, s.name, kind, strings.Join(kinds, " or "))
		}
	}
	var twice int
	if err := s.pool.QueryRow(ctx, "select count(*) - count(distinct key) from "+s.quoted).Scan(&twice); err != nil {
		return fmt.Errorf("look at the table %s: %w", s.name, err)
	}
	if twice > 0 {
		return fmt.Errorf("%d rows of %s have no key, or one that another row has too: an entry is one row with a key of its own", twice, s.name)
	}
	return nil
}

// StoreName implements [Source].
func (s *Table) StoreName() string { return kv.DefaultStore }

// Name implements [Source].
func (s *Table) Name() string {
	c := s.pool.Config().ConnConfig
	return fmt.Sprintf("table %s of %s/%s", s.name, c.Host, c.Database)
}

// List implements [Source]. A row's revision is the transaction that wrote it.
func (s *Table) List(ctx context.Context) iter.Seq2[blobs.Listed, error] {
	return func(yield func(blobs.Listed, error) bool) {
		made, err := s.makeIndexes(ctx)
		if err != nil {
			yield(blobs.Listed{}, fmt.Errorf("read the indexes of %s: %w", s.name, err))
			return
		}
		s.mu.Lock()
		s.made = made
		s.mu.Unlock()
		for key, value := range made {
			if !yield(blobs.Listed{Key: key, ETag: revisionOf(value), Size: int64(len(value))}, nil) {
				return
			}
		}
		rows, _ := s.pool.Query(ctx, "select key, xmin::text, coalesce(octet_length(value::text), 0)::bigint from "+s.quoted) // rows has the error
		defer rows.Close()
		for rows.Next() {
			var l blobs.Listed
			if err = rows.Scan(&l.Key, &l.ETag, &l.Size); err != nil {
				break
			}
			if !yield(l, nil) {
				return
			}
		}
		if err = errors.Join(err, rows.Err()); err != nil {
			yield(blobs.Listed{}, fmt.Errorf("list %s: %w", s.name, err))
		}
	}
}

// revisionOf is the revision of an index entry that has no row.
func revisionOf(value []byte) string { return fmt.Sprintf("%.8x", sha256.Sum256(value)) }

// makeIndexes makes the entries of the indexes that have no row: their members in the order in which they came.
func (s *Table) makeIndexes(ctx context.Context) (map[string][]byte, error) {
	made := map[string][]byte{}
	if s.columns["indexes"] == "" {
		return made, nil
	}
	order := "key"
	if s.columns["created_at"] != "" {
		order = "created_at, key"
	}
	rows, err := s.pool.Query(ctx, fmt.Sprintf(`
		select index_key, json_agg(member order by row_n, n)::text
		from (select distinct on (parts[1], parts[2]) parts[1] as index_key, parts[2] as member, row_n, n
			from (select indexes, row_number() over (order by %s) as row_n from %s where cardinality(indexes) > 0) as r,
				unnest(r.indexes) with ordinality as e (text, n), regexp_match(e.text, '^(.+):(.+)$') as parts
			where parts is not null order by parts[1], parts[2], row_n, n) as members
		where not exists (select from %s as t where t.key = index_key)
		group by index_key`, order, s.quoted, s.quoted))
	if err != nil {
		return nil, err
	}
	var key, value string
	_, err = pgx.ForEachRow(rows, []any{&key, &value}, func() error {
		var compact bytes.Buffer
		if err := json.Compact(&compact, []byte(value)); err != nil {
			return err
		}
		made[key] = compact.Bytes()
		return nil
	})
	return made, err
}

// rowsAtOnce is how many rows are asked for at a time, unless they are more than stream.MaxBytesAtOnce.
const rowsAtOnce = 500

// Read implements [Source].
func (s *Table) Read(ctx context.Context, list iter.Seq2[blobs.Listed, error]) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		var chunk []blobs.Listed
		bytes := int64(0)
		send := func() bool {
			items, err := s.read(ctx, chunk)
			if err != nil {
				yield(Item{}, err)
				return false
			}
			chunk, bytes = nil, 0
			for _, item := range items {
				if !yield(item, nil) {
					return false
				}
			}
			return true
		}
		for l, err := range list {
			if err != nil {
				yield(Item{}, err)
				return
			}
			if len(chunk) > 0 && (len(chunk) == rowsAtOnce || bytes+l.Size > stream.MaxBytesAtOnce) && !send() {
				return
			}
			chunk, bytes = append(chunk, l), bytes+l.Size
		}
		if len(chunk) > 0 {
			send()
		}
	}
}

// micros is 0 for a time that is not known, or that no answer can show, such as infinity.
func micros(column string) string {
	return fmt.Sprintf("coalesce((case when %[1]s >= '0001-01-01Z' and %[1]s < '10000-01-01Z' then extract(epoch from %[1]s) * 1000000 end)::bigint, 0)", column)
}

func (s *Table) read(ctx context.Context, list []blobs.Listed) (items []Item, err error) {
	keys := make([]string, len(list))
	for i, listed := range list {
		keys[i] = listed.Key
	}
	rows, err := s.pool.Query(ctx, fmt.Sprintf("select key, xmin::text, value::text, %s, %s, %s from %s where key = any ($1)",
		s.column("indexes", "indexes::text[]", "null::text[]"),
		s.column("created_at", micros("created_at"), "0::bigint"), s.column("updated_at", micros("updated_at"), "0::bigint"), s.quoted), keys)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.name, err)
	}
	read := make(map[string]Item, len(list))
	var key, revision string
	var value *string
	var indexes []*string
	var created, updated int64 // 0: not known
	if _, err := pgx.ForEachRow(rows, []any{&key, &revision, &value, &indexes, &created, &updated}, func() error {
		item := Item{Blob: blobs.Blob{ETag: revision}, Created: created, Updated: updated}
		if value == nil {
			item.Err = &RowError{"its value is NULL"}
		} else {
			item.Blob.Value = []byte(*value)
		}
		if indexes != nil {
			var problem error
			if item.Indexes, problem = tablePairs(indexes); problem != nil {
				item.Err = problem
			}
		}
		read[key] = item
		return nil
	}); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.name, err)
	}
	for _, listed := range list {
		item, found := read[listed.Key]
		if !found {
			item = s.index(listed.Key)
		}
		item.Listed = listed
		items = append(items, item)
	}
	return items, nil
}

// index is an index entry that has no row.
func (s *Table) index(key string) Item {
	s.mu.Lock()
	defer s.mu.Unlock()
	value, found := s.made[key]
	if !found {
		return Item{Missing: true}
	}
	return Item{Blob: blobs.Blob{Value: value, ETag: revisionOf(value)}, Indexes: [][2]string{}, IsIndex: true}
}

func (s *Table) column(name, expression, otherwise string) string {
	if s.columns[name] == "" {
		return otherwise
	}
	return expression
}

// RowError is what keeps an entry from being made of a row of a [Table].
type RowError struct{ reason string }

// Error says what is wrong with the row.
func (e *RowError) Error() string { return e.reason }

// tablePairs splits "<key>:<member>" strings at their last colon, as kv_store does with those that are written by
// hand.
func tablePairs(indexes []*string) ([][2]string, error) {
	pairs := [][2]string{}
	for _, text := range indexes {
		at := -1
		if text != nil {
			at = strings.LastIndexByte(*text, ':')
		}
		if at <= 0 || at == len(*text)-1 {
			return pairs, &RowError{`an element of its indexes is not "<key>:<member>": ` + nameOf(text)}
		}
		if pair := [2]string{(*text)[:at], (*text)[at+1:]}; !slices.Contains(pairs, pair) {
			pairs = append(pairs, pair)
		}
	}
	return pairs, nil
}

func nameOf(text *string) string {
	if text == nil {
		return "NULL"
	}
	return fmt.Sprintf("%q", *text)
}

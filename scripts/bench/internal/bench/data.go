package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Data is a store that is filled for a measurement. Queries find the same number of entries at any size: an owner has
// 100 entries, a word and a range of 100 scores match 100, and 100 keys differ only in their last two digits. None of
// this correlates with the order of keys.
type Data struct {
	Prefix  string
	Entries int
}

// The number of entries that the queries of a [Data] find.
const (
	found       = 100
	fewestTotal = 1000
)

// CheckEntries returns an error if a store cannot be filled with that many entries.
func CheckEntries(n int) error {
	if n < fewestTotal || n%found != 0 || n > 9_999_900 {
		return fmt.Errorf("entries must be hundreds, from %d to 9999900, got %d", fewestTotal, n)
	}
	return nil
}

func (d Data) key(i int) string     { return fmt.Sprintf("%sdoc/%07d", d.Prefix, i) }
func (d Data) ownerIndex() string   { return d.Prefix + "owner" }
func (d Data) typeIndex() string    { return d.Prefix + "type" }
func (d Data) groups() int          { return d.Entries / found }
func (d Data) any(r *rand.Rand) int { return r.IntN(d.Entries) + 1 }

// hundred returns a prefix of 100 keys.
func (d Data) hundred(r *rand.Rand) string {
	return fmt.Sprintf("%sdoc/%05d", d.Prefix, 1+r.IntN(d.groups()-1))
}

// word returns a word of 100 entries.
func (d Data) word(r *rand.Rand) string { return fmt.Sprintf("benchword%d", r.IntN(d.groups())) }

// scorePath is the path of a unique number, from 0 on. Other entries do not have this path, which is indexed.
const scorePath = "benchScore"

// Fill writes the entries in one statement, so that a million of them take minutes instead of an hour.
func (d Data) Fill(ctx context.Context, conn *pgx.Conn) error {
	tx, err := conn.Begin(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	if _, err := tx.Exec(ctx, "set local statement_timeout = 0"); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `insert into public.kv_store (key, value, is_index) values ($1, '[]', true), ($2, '[]', true)`, d.ownerIndex(), d.typeIndex()); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `
		insert into kv.member (index_key, member)
		select $1, 'o' || i from generate_series(0, $3::integer / 100 - 1) as i union all select $2, 't' || i from generate_series(0, 9) as i`,
		d.ownerIndex(), d.typeIndex(), d.Entries); err != nil {
		return err
	}
	// i times a prime, modulo the number of entries, is a permutation.
	if _, err := tx.Exec(ctx, `
		insert into public.kv_store (key, value, index_pairs)
		select $1 || 'doc/' || lpad(i::text, 7, '0'),
			json_build_object(
				'user', 'user-' || lpad((i * 7919 % n)::text, 7, '0'), '`+scorePath+`', i * 104729 % n, 'active', true,
				'title', 'What a session of an app keeps benchword' || i * 1299709 % n % (n / 100), 'tags', json_build_array('draft', 'mobile', 'beta'),
				'body', 'Some sentences of text, as people write them into a form, and a few more words to make up for a size that is usual.'),
			array[array[$2, 'o' || i * 7919 % n % (n / 100)], array[$3, 't' || i % 10]]
		from (select $4::bigint as n) as size, generate_series(1::bigint, n) as i`, d.Prefix, d.ownerIndex(), d.typeIndex(), d.Entries); err != nil {
		return err
	}
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	return settle(ctx, conn)
}

// settle runs the database's background maintenance, so that it does not run during a measurement.
func settle(ctx context.Context, conn *pgx.Conn) error {
	for _, statement := range []string{"vacuum (analyze) public.kv_store", "vacuum (analyze) kv.posting", "vacuum (analyze) kv.member", "vacuum (analyze) kv.log"} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// Remove deletes every entry under a prefix, also in the store of texts, and vacuums, so that the next measurement is not affected.
func Remove(ctx context.Context, conn *pgx.Conn, prefix string) error {
	deleted, err := conn.Exec(ctx, `
		delete from public.kv_store
		where key >= $1 and key < kv.prefix_end($1) or key >= $2 and key < kv.prefix_end($2)`, prefix, "\U0010ffff/"+textStore+"/"+prefix)
	if err != nil || deleted.RowsAffected() == 0 {
		return err
	}
	return settle(ctx, conn)
}

// IndexScores indexes the scores, and returns the function that drops the index.
func IndexScores(ctx context.Context, conn *pgx.Conn) (undo func(context.Context) error, err error) {
	if _, err := conn.Exec(ctx, "select public.kv_index_path($1)", scorePath); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error {
		_, err := conn.Exec(ctx, "select public.kv_unindex_path($1)", scorePath)
		return err
	}, nil
}

// valueOf returns a value like those of Fill, which no query finds.
func (d Data) valueOf(r *rand.Rand) map[string]any {
	return map[string]any{
		"user": fmt.Sprintf("user-%07d", r.IntN(d.Entries)), scorePath: -1, "active": true,
		"title": "What a session of an app keeps", "tags": []string{"draft", "mobile", "beta"},
		"body": "Some sentences of text, as people write them into a form, and a few more words to make up for a size that is usual.",
	}
}

// largeValue returns a value of about a megabyte.
func (d Data) largeValue(r *rand.Rand) map[string]any {
	parts := make([]map[string]any, 1000)
	for i := range parts {
		parts[i] = map[string]any{"n": r.IntN(1_000_000), "text": strings.Repeat("a line of a document, as long as people write them; ", 18), "done": i%2 == 0}
	}
	return map[string]any{"parts": parts}
}

// pairsOf returns the two indexes of an entry of Fill.
func (d Data) pairsOf(i int) [][2]string {
	return [][2]string{{d.ownerIndex(), fmt.Sprintf("o%d", i*7919%d.Entries%d.groups())}, {d.typeIndex(), fmt.Sprintf("t%d", i%10)}}
}

// pairs returns two indexes for a new entry.
func (d Data) pairs(r *rand.Rand) [][2]string {
	return [][2]string{{d.ownerIndex(), fmt.Sprintf("o%d", r.IntN(d.groups()))}, {d.typeIndex(), fmt.Sprintf("t%d", r.IntN(10))}}
}

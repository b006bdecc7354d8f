// Package kv keeps JSON values under string keys in Supabase, which is Postgres behind PostgREST.
//
// A value comes back byte for byte as it was written: key order, duplicate keys, 1.0, 1e400, \u0000. An upsert and
// its index changes commit together or not at all. One that is repeated after a lost response is applied once. Each
// operation is one round trip to one kv_* function of supabase/migrations.
//
// [Store] is the contract of the JSON values, and [Entries] that of any bytes in any store; [Supabase] implements both.
// A read is a readRequest (read_request.go), which [Supabase] sends. [Cache] adds a bounded memory of their results that
// never serves one older than the allowed staleness, whoever changed the row. Every error is an [*Error] with a stable
// [Code] and a Message that callers may read. The package knows nothing of HTTP endpoints or Lambda; that is package
// netlify.
package kv

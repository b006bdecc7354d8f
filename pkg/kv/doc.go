// Package kv keeps JSON values under string keys in Supabase: Postgres, reached through PostgREST.
//
// A value comes back byte for byte as it was written, whatever JSON allows: key order, duplicate keys, 1.0, 1e400,
// \u0000. An upsert and its index changes commit together or not at all, and one that had to be repeated after a lost
// reply is applied once. Each operation is one round trip to one kv_* function of supabase/migrations.
//
// [Store] is the contract; [Supabase] keeps it. [Cache] reads from it and from memory, and says how: no answer is older than
// the allowed staleness, whoever changed the row. Stores are safe for concurrent use. Every error a store returns is an
// [*Error] whose [Code] tells what happened and whose Message is fit for a caller. The package knows nothing of HTTP
// requests from browsers or of Lambda: that is package netlify.
package kv

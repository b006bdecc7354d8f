// Package migrate brings the entries of Netlify Blobs into Supabase: it plans, copies and verifies.
//
// A [sources.Source] gives blobs: Netlify Blobs itself, a table, or a backup (pkg/migrate/backup). Source and target
// are read in key order and merged as streams, so memory does not grow with their number. An entry is made of each
// blob, with the indexes that the blob itself says it has, or else those that rules make of the members of index
// entries ([entries.Rules]). [Run] imports what the database does not remember yet, batch by batch; what was done is
// remembered in the transaction that does it, so a run that was killed goes on from any machine. [Verify] compares
// both stores anew, by SHA-256. Nothing here ever deletes a blob.
//
// Live traffic may go on with mirrored writes: pkg/kv's Import leaves alone what anybody else wrote or deleted.
package migrate

// Package migrate brings the entries of Netlify Blobs into Supabase: it plans, copies, verifies, backs up and restores.
//
// A [Source] gives blobs: Netlify Blobs itself, or a backup of it. A [Transform] makes an entry of each, with the indexes that
// the site's index entries say it has ([Extract]). [Run] copies what the [Journal] does not have yet, batch by batch, and
// [Verify] compares both stores anew, by SHA-256, without looking at what Run counted. Nothing here ever deletes a blob.
//
// Live traffic may go on with mirrored writes: pkg/kv's Import leaves alone what anybody else wrote or deleted.
package migrate

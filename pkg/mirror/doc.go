// Package mirror runs two stores side by side: Netlify Blobs and Supabase. The primary store answers every request.
// Writes also go to the other store, and a share of the reads can be compared.
//
// For every key, the mirror ends where the primary ended, even when requests race and writes arrive late. Neither
// direction repeats the write. Each copies what the primary holds, over what it has read from the other store and
// nothing else (a conditional write). Then it reads the primary again, until that has not changed. A copy that is not
// confirmed leaves an outbox entry in the database (kv.outbox). It is added before the write or with it, and
// [Pair.Repair] handles it.
package mirror

// Package mirror runs two stores side by side: Netlify Blobs and Supabase. The first store decides every answer; writes also go
// to the other one, and a share of the reads can be compared.
//
// Per key, the mirror ends where the first store ended, also when requests race and writes arrive late. Neither direction
// repeats the write: each copies what the first store holds, over what it has seen in the other store and nothing else (a
// conditional write), and then looks at the first store again until that has not moved. What cannot be confirmed leaves a
// trace in the database (kv.outbox), which is written before or with the write, and which [Pair.Repair] works off.
package mirror

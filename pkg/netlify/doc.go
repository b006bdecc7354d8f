// Package netlify serves a [kv.Store] and [kv.Entries] as Netlify Functions.
//
// Each endpoint ([Upsert], [List], [Get], [Query], [Delete], [Entries], [Batch], [BlobsAPI], [StorageAPI]) is an [Endpoint]
// in a file of its own: it reads a [Request], calls the store and returns a [Response] or an error. [Handle] does what all
// endpoints share: methods and preflights, tokens, deadlines, headers, the size limit, errors as JSON, and one log line
// per request. Only the handler writes responses, so that a promise about all of them is kept in one place. store.go makes
// the stores of the environment's variables.
package netlify

// Package netlify serves a kv.Store as Netlify Functions: events in, answers out.
//
// Each endpoint ([Upsert], [List], [Get], [Query], [Delete]) is an [Endpoint] in a file of its own: it reads a [Request], asks
// the store and returns an [Answer] or an error. [Handle] does what all endpoints share: methods and preflights,
// tokens, deadlines, headers, the size limit, errors as JSON, one log line per request. It is the only code that writes
// a response, so that a promise about every response is kept in one place.
package netlify

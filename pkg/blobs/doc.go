// Package blobs is a client for a site-wide store of Netlify Blobs, and a [kv.Store] on top of it. Netlify offers no
// client for Go. The protocol is that of the npm package @netlify/blobs 11.1.1, and each of the two reads what the
// other writes.
//
// An [Access] leads to the store in one of two ways: the edge, with what a function's event carries, or the API, with
// a token from the environment. Through the API, values travel by signed URLs, which the client requests and then
// uses without the token.
//
// Transient failures are repeated for up to fifteen seconds and within the context's deadline: lost connections,
// truncated responses, 429 (not before the service allows it), 5xx, expired signed URLs. An attempt may take half of
// the time left. If the service asks to wait longer than that, [Error] says how long. Success is a list of known
// statuses. Errors hold no token, no signed URL and no value.
//
// What a client of this service cannot guarantee:
//   - A repeated write without a condition may arrive a second time, later, and undo a newer write. A condition
//     prevents that.
//   - If the response of a write was lost and somebody wrote since, nobody can tell whether the write was applied:
//     see [Client.Set].
//   - Reads are as fresh as the address. An event's url_uncached returns the latest write; its url may be a minute
//     behind.
//
// Lists return plain keys. The servers of netlify dev and of @netlify/blobs/server list and expect percent-encoded
// ones, and have no etags on reads. The client follows them only with [Client.WithLocalEvents]: a hosted key that
// merely looks percent-encoded would otherwise become another blob's. Other clients can write such keys. They are
// listed, but [ValidateKey] refuses them.
package blobs

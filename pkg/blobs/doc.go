// Package blobs is a client for one site-wide store of Netlify Blobs. Netlify has none for Go; the protocol is that of the
// npm package @netlify/blobs 11.1.1, and what one of the two writes, the other reads.
//
// There are two ways in, told apart by the [Access] of a request: the edge, with what a function's event carries, and the API,
// with a token from the environment. Through the API, values travel by signed URLs, which the client asks for and which it
// fetches without the token.
//
// What fails for a passing reason is repeated for up to fifteen seconds and within the context, and an attempt may take half of
// what is left of them: connections, answers that are cut off, 429 (not before the service allows it), 5xx, expired signed
// URLs. A wait that is longer than the time left is the caller's: [Error] says how long it is. An operation succeeds with the
// statuses that are known to mean success, and with no other. Errors hold no token, no signed URL and no value.
//
// What a client of this service cannot promise:
//   - A write without a condition that was repeated may arrive a second time, later, and undo a write that came after it. Who
//     needs an order sets a condition.
//   - Whether a write whose answer was lost has been applied cannot be asked once somebody else wrote: see [Client.Set].
//   - Reads are as fresh as the address: of an event, url_uncached reads what was written last; if an event has only url, what
//     is read may be a minute old.
//
// Lists give keys as the service does, plain. The server of netlify dev and of @netlify/blobs/server gives them
// percent-encoded and reads a prefix so, and has no etags on reads. This client follows it only where it is told to
// ([Client.WithLocalEvents]), because a hosted key that looks percent-encoded, which other clients can write, would become that
// of another blob. Such a key is listed, but [ValidateKey] refuses it.
package blobs

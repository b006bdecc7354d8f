// Package blobstest stands in for hosted Netlify Blobs, which does not run locally. It is an [http.Handler] for the
// unchanged clients of Netlify Blobs, with the blobs as files in one directory.
//
// It guarantees what a client may rely on with the hosted service:
//   - both ways in: the edge address with the token that functions get in their event, and the API with a personal
//     token, where reads and writes of a value go through signed URLs that expire
//   - conditional writes (If-None-Match: *, If-Match) are atomic: of any number at once, one succeeds and the others
//     get 412
//   - an etag identifies one write and its content: another write has another, also after a restart
//   - lists are in byte order and paged; what exists from the first page to the last is in them exactly once
//   - where [Faults.Limit] says so, the API takes a limited number of requests in a window and tells how many are
//     left, by the headers that Netlify documents (Retry-After is not among them); the edge and signed URLs are not
//     limited
//   - any key of 1 to 600 bytes of UTF-8 is a different blob: a and a/b do not clash, and segments may be long
//   - an acknowledged write survives the process, however that ends; an interrupted one leaves nothing. After a power cut
//     a blob is as before or after its last write, never torn
//
// It differs from the hosted service, or guarantees nothing, where one machine cannot show it or nobody outside knows:
//   - the same bytes written twice have two etags here; hosted they may have one
//   - there is no cache: the cached and the uncached address both read the last write (hosted: up to 60 s old)
//   - regions are checked by name and hold the same blobs
//   - values end at [Options.MaxValueBytes] (hosted: 5 GB), are held in memory while a request runs, and forget their
//     content type
//   - the stores of a site cannot be listed
//   - errors carry a sentence in X-Nf-Error and in the body; only their status is as hosted
//   - what the JavaScript client cannot request is refused with 400, so that nobody relies on it: conditions on a delete,
//     an etag in the If-None-Match of a write, keys with a segment . or .. (which URL parsers remove)
//   - a lone % in a path is refused with 400 by Go's HTTP server before this package sees it
//
// The directory belongs to one [Server] at a time. Faults for tests are switched on through [FaultsPath].
package blobstest

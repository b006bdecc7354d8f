// Package blobstest stands in for hosted Netlify Blobs, which cannot be had locally: an [http.Handler] that the
// unchanged clients of Netlify Blobs talk to, with the blobs kept as files in one directory.
//
// It promises what a client may rely on when hosted:
//   - both ways in: the edge address with the token that functions get in their event, and the API with a personal
//     token, where reads and writes of a value go through signed URLs that expire
//   - conditional writes (If-None-Match: *, If-Match) are atomic: of any number at once, one succeeds and the others
//     get 412
//   - an etag stands for one write and its content: another write has another, also after a restart
//   - lists are in byte order and come in pages; whatever exists from the first page to the last is in them exactly
//     once
//   - where [Faults.Limit] says so, the API takes a limited number of requests in a window and tells how many are
//     left, by the headers that Netlify documents (Retry-After is not among them); the edge and signed URLs are not
//     limited
//   - any key of 1 to 600 bytes of UTF-8 is a name of its own: a and a/b do not clash, long segments are no trouble
//   - a write that was answered outlives the process, however that ends; one that was cut off left nothing. After a
//     power cut a blob is as it was before its last write or after it, never torn
//
// It does not promise what a copy of one machine cannot show, or what nobody outside knows of the hosted service:
//   - the same bytes written twice have two etags here; hosted they may have one
//   - there is no cache: the cached and the uncached address both read what was written last (hosted: up to 60 s old)
//   - regions are checked by name and hold the same blobs
//   - values end at [Options.MaxValueBytes] (hosted: 5 GB), are held in memory while a request runs, and forget their
//     content type
//   - the stores of a site cannot be listed
//   - errors carry a sentence in X-Nf-Error and in the body; only their status is as hosted
//   - whatever the JavaScript client cannot ask for is refused with 400, so that nobody comes to rely on it:
//     conditions on a delete, an etag in the If-None-Match of a write, keys with a segment . or .. (a URL parser on
//     the way would remove it)
//   - a lone % in a path is refused with 400 by Go's HTTP server before this package sees it
//
// The directory belongs to one [Server] at a time. Faults for tests are switched on through [FaultsPath].
package blobstest

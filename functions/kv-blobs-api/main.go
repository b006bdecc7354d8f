// Command kv-blobs-api answers the protocol of @netlify/blobs, under /api/kv/blobs: the unchanged
// client works on the stores of kv-entries.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"netlify-supabase-kv/pkg/netlify"
)

func main() {
	store := netlify.EntriesFromEnv() // once per process; unconfigured, it answers every request 503 and says what to set
	lambda.Start(netlify.Handle(netlify.BlobsAPI(store)))
}

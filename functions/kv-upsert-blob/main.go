// Command kv-upsert-blob answers POST /.netlify/functions/kv-upsert-blob: it writes an entry to Netlify Blobs, whichever
// store kv-upsert writes.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"netlify-supabase-kv/pkg/netlify"
)

func main() {
	store := netlify.BlobsStoreFromEnv() // once per process; without a way to Blobs, it answers every request 503 and says what to set
	lambda.Start(netlify.Handle(netlify.UpsertBlob(store)))
}

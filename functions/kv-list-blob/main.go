// Command kv-list-blob answers GET /.netlify/functions/kv-list-blob: the keys under a prefix in Netlify Blobs, whichever
// store kv-list reads.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"netlify-supabase-kv/pkg/netlify"
)

func main() {
	store := netlify.BlobsStoreFromEnv() // once per process; without a way to Blobs, it answers every request 503 and says what to set
	lambda.Start(netlify.Handle(netlify.ListBlob(store)))
}

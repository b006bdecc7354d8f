// Command kv-batch answers POST /.netlify/functions/kv-batch: it applies up to 1,000 operations on entries.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"netlify-supabase-kv/pkg/netlify"
)

func main() {
	store := netlify.EntriesFromEnv() // once per process; unconfigured, it answers every request 503 and says what to set
	lambda.Start(netlify.Handle(netlify.Batch(store)))
}

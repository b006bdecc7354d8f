// Command kv-entries answers /api/kv/entries/<store>/<key>: it reads, writes and deletes entries of any bytes.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"netlify-supabase-kv/pkg/netlify"
)

func main() {
	store := netlify.EntriesFromEnv() // once per process; unconfigured, it answers every request 503 and says what to set
	lambda.Start(netlify.Handle(netlify.Entries(store)))
}

// Command kv-upsert answers POST /.netlify/functions/kv-upsert: it creates or replaces an entry.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"netlify-supabase-kv/pkg/netlify"
)

func main() {
	store := netlify.StoreFromEnv() // once per process; unconfigured, it answers every request 503 and says what to set
	lambda.Start(netlify.Handle(netlify.Upsert(store)))
}

// Command kv-delete answers DELETE and POST /.netlify/functions/kv-delete: it removes an entry.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"netlify-supabase-kv/pkg/netlify"
)

func main() {
	store := netlify.StoreFromEnv() // once per process; unconfigured, it answers every request 503 and says what to set
	lambda.Start(netlify.Handle(netlify.Delete(store)))
}

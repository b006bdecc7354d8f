// Command kv-get answers GET /.netlify/functions/kv-get: one value.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"netlify-supabase-kv/pkg/netlify"
)

func main() {
	reader := netlify.ReaderFromEnv(netlify.GetCache) // once per process; unconfigured, it answers every request 503 and says what to set
	lambda.Start(netlify.Handle(netlify.Get(reader)))
}

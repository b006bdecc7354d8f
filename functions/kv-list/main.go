// Command kv-list answers GET /.netlify/functions/kv-list: the keys under a prefix in byte order, on request with their
// values.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"netlify-supabase-kv/pkg/netlify"
)

func main() {
	reader := netlify.ReaderFromEnv(netlify.ListCache) // once per process; unconfigured, it answers every request 503 and says what to set
	lambda.Start(netlify.Handle(netlify.List(reader)))
}

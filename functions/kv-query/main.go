// Command kv-query answers GET and POST /.netlify/functions/kv-query: entries by index, text and parts of their values.
package main

import (
	"github.com/aws/aws-lambda-go/lambda"

	"netlify-supabase-kv/pkg/netlify"
)

func main() {
	reader := netlify.ReaderFromEnv(netlify.QueryCache) // once per process; unconfigured, it answers every request 503 and says what to set
	lambda.Start(netlify.Handle(netlify.Query(reader, netlify.QueryTimeoutFromEnv())))
}

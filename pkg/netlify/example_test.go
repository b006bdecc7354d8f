package netlify_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"netlify-supabase-kv/pkg/kv"
	"netlify-supabase-kv/pkg/netlify"
)

// fruit is a reader of fixed entries. A function has the reader of [netlify.ReaderFromEnv] in its place.
type fruit map[string]string

func (f fruit) Get(_ context.Context, key string, _ kv.Freshness) (kv.ReadResult, error) {
	value, found := f[key]
	if !found {
		return kv.ReadResult{}, &kv.Error{Code: kv.CodeNotFound, Message: "Key not found"}
	}
	return kv.ReadResult{Body: value, Source: kv.SourceOff}, nil
}

func (fruit) Stats() kv.CacheStats { return kv.CacheStats{} }

// serve invokes a function as Lambda does, with its log dropped.
func serve(endpoint netlify.Endpoint, event string) (status int, body map[string]any) {
	handler := netlify.HandleWithLog(endpoint, slog.New(slog.DiscardHandler))
	raw, err := handler.Invoke(context.Background(), []byte(event))
	if err != nil {
		panic(err) // a handler turns every failure into a response
	}
	var response struct {
		StatusCode int
		Body       string
	}
	if err := json.Unmarshal(raw, &response); err != nil {
		panic(err)
	}
	if err := json.Unmarshal([]byte(response.Body), &body); err != nil {
		panic(err)
	}
	delete(body, "timestamp")
	return response.StatusCode, body
}

// A function of this repository is an endpoint on a store:
// lambda.Start(netlify.Handle(netlify.Get(netlify.ReaderFromEnv(netlify.GetCache)))).
func ExampleGet() {
	endpoint := netlify.Get(fruit{"apple": `{"color":"green"}`})
	fmt.Println(serve(endpoint, `{"httpMethod":"GET","path":"/api/kv/get/apple"}`))
	fmt.Println(serve(endpoint, `{"httpMethod":"GET","queryStringParameters":{"key":"pear"}}`))
	fmt.Println(serve(endpoint, `{"httpMethod":"PUT","path":"/api/kv/get/apple"}`))
	// Output:
	// 200 map[exists:true key:apple value:map[color:green]]
	// 404 map[code:not_found error:Key not found exists:false key:pear]
	// 405 map[code:method_not_allowed error:Method Not Allowed]
}

// An endpoint returns a response or an error. The code of the error decides the status, and a bug's message stays in
// the log.
func ExampleEndpoint() {
	endpoint := netlify.Endpoint{
		Name:  "kv-greet",
		Reads: []string{http.MethodGet},
		Run: func(_ context.Context, r *netlify.Request) (*netlify.Response, error) {
			switch name := r.Param("name"); name {
			case "":
				return nil, kv.Invalid("name must be given")
			case "bug":
				return nil, fmt.Errorf("a cause that callers must not see")
			default:
				body := kv.AppendString([]byte(`{"hello":`), name)
				return &netlify.Response{Status: http.StatusOK, Body: append(body, '}')}, nil
			}
		},
	}
	fmt.Println(serve(endpoint, `{"httpMethod":"GET","queryStringParameters":{"name":"Ann"}}`))
	fmt.Println(serve(endpoint, `{"httpMethod":"GET"}`))
	fmt.Println(serve(endpoint, `{"httpMethod":"GET","queryStringParameters":{"name":"bug"}}`))
	// Output:
	// 200 map[hello:Ann]
	// 400 map[code:invalid_input error:name must be given]
	// 500 map[code:internal error:internal error; details are in the function's log]
}

// Without its variables, a function starts and says in every response what to set.
func ExampleStoreFromEnv() {
	for name, value := range map[string]string{"USE_SUPABASE_KV": "true", "SUPABASE_URL": ""} {
		defer os.Setenv(name, os.Getenv(name))
		os.Setenv(name, value)
	}
	_, err := netlify.StoreFromEnv().Get(context.Background(), "any")
	fmt.Println(err)
	// Output:
	// not_configured: SUPABASE_URL is not set: set it to the address of the Supabase project
}

// Command lambda is a function for tests, a real one: it does what the query parameter do asks for.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
)

type request struct {
	Query map[string]string `json:"queryStringParameters"`
}

type response struct {
	StatusCode        int                 `json:"statusCode"`
	Headers           map[string]string   `json:"headers,omitempty"`
	MultiValueHeaders map[string][]string `json:"multiValueHeaders,omitempty"`
	Body              string              `json:"body"`
	IsBase64Encoded   bool                `json:"isBase64Encoded,omitempty"`
}

func main() {
	if _, err := os.Stat(os.Getenv("KV_TEST_DIES_WHILE_EXISTS")); err == nil {
		os.Exit(3)
	}
	lambda.Start(handle)
}

func handle(_ context.Context, event json.RawMessage) (response, error) {
	var r request
	if err := json.Unmarshal(event, &r); err != nil {
		return response{}, err
	}
	argument := r.Query["n"]
	switch r.Query["do"] {
	case "env":
		return response{StatusCode: 200, Body: strings.Join(os.Environ(), "\n")}, nil
	case "exit":
		os.Exit(1)
	case "panic":
		panic("asked to")
	case "fail":
		return response{}, errors.New("asked to")
	case "sleep":
		d, err := time.ParseDuration(argument)
		if err != nil {
			return response{}, err
		}
		time.Sleep(d)
	case "large": // so that the whole JSON has n bytes
		n, err := strconv.Atoi(argument)
		if err != nil {
			return response{}, err
		}
		frame, err := json.Marshal(response{StatusCode: 200})
		if err != nil {
			return response{}, err
		}
		return response{StatusCode: 200, Body: strings.Repeat("x", n-len(frame))}, nil
	case "headers":
		return response{StatusCode: 201, Headers: map[string]string{"X-One": "1", "X-Many": "lost"},
			MultiValueHeaders: map[string][]string{"X-Many": {"a", "b"}}, Body: "AAH/", IsBase64Encoded: true}, nil
	case "nothing":
		return response{StatusCode: 304, Headers: map[string]string{"ETag": `"x"`}}, nil
	case "length":
		return response{StatusCode: 200, Headers: map[string]string{"Content-Length": argument}}, nil
	case "badstatus":
		return response{StatusCode: 7}, nil
	}
	return response{StatusCode: 200, Headers: map[string]string{"Content-Type": "application/json"}, Body: string(event)}, nil
}

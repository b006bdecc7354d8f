package bench

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
)

// Operation is an operation of the store and the request for it.
type Operation struct {
	Name     string
	Function string // that handles it
	// Rarely, if not 0, runs a slow operation only once in that many rounds.
	Rarely int
	// writes means that every way gets its own key.
	writes bool
	// request creates the request; for writes, with the key.
	request func(d Data, r *rand.Rand, key string) request
	// contains is a part of every response.
	contains string
	// table creates the most similar plain request to a table; nil if there is none.
	table func(d Data, q request, key string) tableRequest
}

// tableRequest is a request to PostgREST for a table.
type tableRequest struct {
	method, path string
	body         any
	prefer       string // the header Prefer
}

// Names of the operations that have promises.
const (
	OpUpsert = "upsert"
	OpGet    = "get"
	OpList   = "list of 100 with values"
	OpIndex  = "query by index"
)

// Operations returns the measured operations.
func Operations() []Operation {
	return []Operation{
		{Name: OpUpsert, Function: "kv-upsert", writes: true, request: upsertRequest(Data.valueOf), contains: `"ok":true`, table: insertRow},
		{Name: "upsert of an entry that exists", Function: "kv-upsert", request: func(d Data, r *rand.Rand, _ string) request {
			return upsertRequest(Data.valueOf)(d, r, fmt.Sprintf("%supdated/%03d", d.Prefix, r.IntN(200)))
		}, contains: `"ok":true`},
		{Name: "upsert of 1 MB", Function: "kv-upsert", Rarely: 20, writes: true, request: upsertRequest(Data.largeValue), contains: `"ok":true`, table: insertRow},
		{Name: OpGet, Function: "kv-get", request: func(d Data, r *rand.Rand, _ string) request {
			return get(map[string]string{"key": d.key(d.any(r))})
		}, contains: `"exists":true`, table: func(_ Data, q request, _ string) tableRequest {
			return tableRequest{method: http.MethodGet, path: "kv_store?select=value&key=eq." + url.QueryEscape(q.params["key"])}
		}},
		{Name: OpList, Function: "kv-list", request: func(d Data, r *rand.Rand, _ string) request {
			return get(map[string]string{"prefix": d.hundred(r), "includeValues": "true", "limit": "100"})
		}, contains: `"count":100`, table: selectRows("key,value")},
		{Name: "list of 100 keys", Function: "kv-list", request: func(d Data, r *rand.Rand, _ string) request {
			return get(map[string]string{"prefix": d.hundred(r), "limit": "100"})
		}, contains: `"count":100`, table: selectRows("key")},
		{Name: OpIndex, Function: "kv-query", request: func(d Data, r *rand.Rand, _ string) request {
			return get(map[string]string{"index": fmt.Sprintf("%s:o%d", d.ownerIndex(), r.IntN(d.groups()))})
		}, contains: `"count":100`},
		{Name: "query by range", Function: "kv-query", request: func(d Data, r *rand.Rand, _ string) request {
			from := r.IntN(d.Entries - found)
			return get(map[string]string{"range": fmt.Sprintf("%s:%d..%d", scorePath, from, from+found-1)})
		}, contains: `"count":100`},
		{Name: "full text", Function: "kv-query", request: func(d Data, r *rand.Rand, _ string) request {
			return get(map[string]string{"q": d.word(r)})
		}, contains: `"count":100`},
		{Name: "aggregate", Function: "kv-query", request: func(d Data, r *rand.Rand, _ string) request {
			return get(map[string]string{"index": fmt.Sprintf("%s:o%d", d.ownerIndex(), r.IntN(d.groups())), "aggregate": "avg:" + scorePath})
		}, contains: `"aggregates":`},
		{Name: "count of a tenth", Function: "kv-query", Rarely: 2, request: func(d Data, r *rand.Rand, _ string) request {
			return get(map[string]string{"index": fmt.Sprintf("%s:t%d", d.typeIndex(), r.IntN(10)), "aggregate": "count"})
		}, contains: `"aggregates":`},
	}
}

func upsertRequest(value func(Data, *rand.Rand) map[string]any) func(Data, *rand.Rand, string) request {
	return func(d Data, r *rand.Rand, key string) request {
		var indexes []map[string]string
		for _, pair := range d.pairs(r) {
			indexes = append(indexes, map[string]string{"key": pair[0], "member": pair[1]})
		}
		return post(map[string]any{"key": key, "value": value(d, r), "indexes": indexes})
	}
}

// insertRow is the simplest way to write an entry: without indexes, and without the row in the response.
func insertRow(_ Data, q request, key string) tableRequest {
	return tableRequest{method: http.MethodPost, path: "kv_store", body: map[string]any{"key": key, "value": fieldOf(q.body, "value")}}
}

func selectRows(columns string) func(Data, request, string) tableRequest {
	return func(_ Data, q request, _ string) tableRequest {
		prefix := q.params["prefix"]
		end := prefix[:len(prefix)-1] + string(prefix[len(prefix)-1]+1) // a digit, and what follows it in ASCII
		return tableRequest{method: http.MethodGet, path: "kv_store?order=key&limit=100&select=" + columns +
			"&key=gte." + url.QueryEscape(prefix) + "&key=lt." + url.QueryEscape(end)}
	}
}

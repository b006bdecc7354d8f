package doctor

import (
	"net/http"
	"slices"
)

// function is one of ours, as a site must have it.
type function struct {
	name     string
	path     string // its short address after /api/kv/, "" if it has none
	wild     bool   // and everything below it
	reads    bool   // KV_READ_TOKEN is enough
	optional bool   // only the way back to Netlify Blobs needs it

	// What asks it for something harmless, and what it answers if all is well.
	method, query, body string
	status              int
}

// nowhere is a key that nobody has: what is asked of it finds nothing and changes nothing.
const nowhere = "kv-doctor/nowhere"

var functions = []function{
	{name: "kv-upsert", path: "upsert", method: http.MethodPost, body: "{}", status: http.StatusBadRequest},
	{name: "kv-list", path: "list", reads: true, method: http.MethodGet, query: "?limit=1&prefix=" + nowhere, status: http.StatusOK},
	{name: "kv-get", path: "get", wild: true, reads: true, method: http.MethodGet, query: "?key=" + nowhere, status: http.StatusNotFound},
	{name: "kv-query", path: "query", reads: true, method: http.MethodGet, query: "?limit=1&prefix=" + nowhere, status: http.StatusOK},
	{name: "kv-delete", path: "delete", method: http.MethodPost, body: "{}", status: http.StatusBadRequest},
	{name: "kv-upsert-blob", optional: true, method: http.MethodPost, body: "{}", status: http.StatusBadRequest},
	{name: "kv-list-blob", optional: true, reads: true, method: http.MethodGet, query: "?limit=1&prefix=" + nowhere, status: http.StatusOK},
}

// named is the function of that name, which is one of ours.
func named(name string) function {
	return functions[slices.IndexFunc(functions, func(f function) bool { return f.name == name })]
}

// direct is where Netlify serves the function.
func (f function) direct() string { return functionsPrefix + f.name }

// short is its address under /api/kv, "" if it has none.
func (f function) short() string {
	if f.path == "" {
		return ""
	}
	return "/api/kv/" + f.path
}

const functionsPrefix = "/.netlify/functions/"

package doctor

import (
	"net/http"
	"slices"
)

// function is one of our functions, as a site must have it.
type function struct {
	name     string
	path     string // the part of the short address after /api/kv/; "" if there is none
	wild     bool   // the short address also covers every path below it
	reads    bool   // KV_READ_TOKEN suffices
	optional bool   // only needed to switch back to Netlify Blobs

	// A harmless request, and the status of its response from a working function. query follows the address.
	method, query, body string
	status              int
}

// absentKey is a key without an entry: a request for it finds nothing and changes nothing.
const absentKey = "kv-doctor/nowhere"

var functions = []function{
	{name: "kv-upsert", path: "upsert", method: http.MethodPost, body: "{}", status: http.StatusBadRequest},
	{name: "kv-list", path: "list", reads: true, method: http.MethodGet, query: "?limit=1&prefix=" + absentKey, status: http.StatusOK},
	{name: "kv-get", path: "get", wild: true, reads: true, method: http.MethodGet, query: "?key=" + absentKey, status: http.StatusNotFound},
	{name: "kv-query", path: "query", reads: true, method: http.MethodGet, query: "?limit=1&prefix=" + absentKey, status: http.StatusOK},
	{name: "kv-delete", path: "delete", method: http.MethodPost, body: "{}", status: http.StatusBadRequest},
	{name: "kv-entries", path: "entries", wild: true, reads: true, method: http.MethodGet, query: "/kv/" + absentKey, status: http.StatusNotFound},
	{name: "kv-batch", path: "batch", method: http.MethodPost, body: "{}", status: http.StatusBadRequest},
	{name: "kv-blobs-api", path: "blobs", wild: true, reads: true, method: http.MethodGet, query: "/site:kv/" + absentKey, status: http.StatusNotFound},
	{name: "kv-storage-api", path: "storage", wild: true, reads: true, method: http.MethodGet, query: "/kv/" + absentKey, status: http.StatusNotFound},
	{name: "kv-upsert-blob", optional: true, method: http.MethodPost, body: "{}", status: http.StatusBadRequest},
	{name: "kv-list-blob", optional: true, reads: true, method: http.MethodGet, query: "?limit=1&prefix=" + absentKey, status: http.StatusOK},
}

// functionNamed returns our function of that name.
func functionNamed(name string) function {
	return functions[slices.IndexFunc(functions, func(f function) bool { return f.name == name })]
}

// direct returns the path at which Netlify serves the function.
func (f function) direct() string { return functionsPrefix + f.name }

// short returns the function's path under /api/kv; "" if it has none.
func (f function) short() string {
	if f.path == "" {
		return ""
	}
	return "/api/kv/" + f.path
}

const functionsPrefix = "/.netlify/functions/"

package kv

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"netlify-supabase-kv/pkg/upstream"
)

// benchProject stands in for a Supabase project that always returns the same response.
func benchProject(b *testing.B, answer string) *Supabase {
	b.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", responseType)
		_, _ = io.WriteString(w, answer)
	}))
	b.Cleanup(server.Close)
	store, err := NewSupabase(server.URL, "key")
	require.NoError(b, err)
	return store
}

const benchChanges = `{"cursor":"0123456789abcdef/1700000000000/100:100:","all":false,"keys":["docs/1","docs/2"]}`

// BenchmarkStore measures calls of the store to a project that responds at once. Plain uses net/http alone.
func BenchmarkStore(b *testing.B) {
	value := `{"text":"` + strings.Repeat("some words ", 27) + `"}`
	b.Run("Get", func(b *testing.B) {
		store := benchProject(b, value)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := store.Get(b.Context(), "docs/1"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Plain", func(b *testing.B) {
		store := benchProject(b, value)
		client := &http.Client{Transport: upstream.Transport}
		b.ReportAllocs()
		for b.Loop() {
			request, err := http.NewRequestWithContext(b.Context(), http.MethodPost, store.url+"/rest/v1/rpc/kv_get", strings.NewReader(`{"p_key":"docs/1"}`))
			if err != nil {
				b.Fatal(err)
			}
			response, err := client.Do(request)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadAll(response.Body); err != nil {
				b.Fatal(err)
			}
			_ = response.Body.Close()
		}
	})
	b.Run("Upsert", func(b *testing.B) {
		store := benchProject(b, `{"version":"01234567.12345"}`)
		entry := Entry{Key: "docs/1", Value: value, Indexes: []Index{{"type", "document"}, {"status", "draft"}}}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := store.Upsert(b.Context(), entry); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("UpsertOf1MB", func(b *testing.B) {
		store := benchProject(b, `{"version":"01234567.12345"}`)
		entry := Entry{Key: "docs/1", Value: `{"text":"` + strings.Repeat("a line of a document; ", 46_000) + `"}`}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := store.Upsert(b.Context(), entry); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkCache measures reads from memory.
func BenchmarkCache(b *testing.B) {
	for _, size := range []int{300, 45_000} {
		b.Run(fmt.Sprintf("HitOf%d", size), func(b *testing.B) {
			config := DefaultCache
			config.MaxStale = time.Hour
			cache := NewCache(benchProject(b, benchChanges+"\n"+strings.Repeat("1", size)), config)
			_, err := cache.Get(b.Context(), "docs/0", Freshness{})
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				answer, err := cache.Get(b.Context(), "docs/0", Freshness{})
				if err != nil || answer.Source != SourceHit {
					b.Fatal(answer.Source, err)
				}
			}
		})
	}
}

// BenchmarkParse measures parsing what callers and the database send.
func BenchmarkParse(b *testing.B) {
	cursor := Cursor{Question: "0123456789ab", Key: "docs/0000100"}.String()
	for name, parse := range map[string]func() bool{
		"Cursor": func() bool {
			_, err := ParseCursor(cursor)
			return err == nil
		},
		"Changes": func() bool {
			var c changes
			return json.Unmarshal([]byte(benchChanges), &c) == nil
		},
		"Covers": func() bool { return covers("0123456789abcdef/1700000000000/100:200:110,120", "01234567.111") },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if !parse() {
					b.Fatal("it cannot be read")
				}
			}
		})
	}
}

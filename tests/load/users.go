package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	vegeta "github.com/tsenart/vegeta/v12/lib"
	"golang.org/x/sync/errgroup"
)

// The addresses of the functions.
const (
	upsertPath = "/.netlify/functions/kv-upsert"
	listPath   = "/.netlify/functions/kv-list"
	getPath    = "/.netlify/functions/kv-get"
	queryPath  = "/.netlify/functions/kv-query"
	deletePath = "/.netlify/functions/kv-delete"
)

// site is the site with what its users share.
type site struct {
	flags
	url    string
	token  string
	prefix string
	client *http.Client
}

func newSite(f flags) *site {
	token, _, _ := strings.Cut(os.Getenv("KV_API_TOKEN"), ",")
	transport := &http.Transport{MaxIdleConns: f.users + 8, MaxIdleConnsPerHost: f.users + 8}
	return &site{flags: f, url: strings.TrimRight(os.Getenv("KV_BASE_URL"), "/"), token: token, prefix: fmt.Sprintf("load/%d/", f.seed),
		// The platform ends a function after a minute, so no user should wait longer.
		client: &http.Client{Transport: transport, Timeout: 65 * time.Second}}
}

// Entries are in folders of a hundred. A list returns one folder.
func (s *site) folder(n int) string { return fmt.Sprintf("%sfolder-%03d/", s.prefix, n/100) }
func (s *site) key(n int) string    { return fmt.Sprintf("%sdoc-%02d", s.folder(n), n%100) }

// entry is the body of an upsert: about 300 bytes with two indexes, which have 5 and 10 % of the entries.
func (s *site) entry(n int, random *rand.Rand) []byte {
	body, err := json.Marshal(map[string]any{
		"key":   s.key(n),
		"value": map[string]any{"n": n, "score": random.IntN(1000), "title": fmt.Sprintf("Entry %d", n), "text": strings.Repeat("some words ", 18)},
		"indexes": []map[string]string{
			{"key": s.prefix + "by-group", "member": fmt.Sprintf("g%d", n%20)},
			{"key": s.prefix + "by-status", "member": fmt.Sprintf("s%d", n%10)},
		},
	})
	if err != nil {
		panic(err) // these values can always be encoded
	}
	return body
}

func (s *site) header() http.Header {
	h := http.Header{"Content-Type": {"application/json"}}
	if s.token != "" {
		h.Set("Authorization", "Bearer "+s.token)
	}
	return h
}

// fill writes every entry once.
func (s *site) fill(ctx context.Context) error {
	random := rand.New(rand.NewPCG(s.seed, 0))
	bodies := make([][]byte, s.entries)
	for n := range bodies {
		bodies[n] = s.entry(n, random)
	}
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(8)
	for _, body := range bodies {
		all.Go(func() error { return s.call(ctx, http.MethodPost, upsertPath, body) })
	}
	return all.Wait()
}

// clear deletes the entries, also after Ctrl-C. Entries that it cannot delete do no harm.
func (s *site) clear() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(8)
	for n := range s.entries {
		all.Go(func() error { return s.call(ctx, http.MethodDelete, deletePath+"?key="+url.QueryEscape(s.key(n)), nil) })
	}
	for _, index := range []string{"by-group", "by-status"} {
		all.Go(func() error {
			return s.call(ctx, http.MethodDelete, deletePath+"?key="+url.QueryEscape(s.prefix+index), nil)
		})
	}
	if err := all.Wait(); err != nil {
		fmt.Fprintf(os.Stderr, "Entries under %s are left: %v\n", s.prefix, err)
	}
}

func (s *site) call(ctx context.Context, method, path string, body []byte) error {
	req, err := http.NewRequestWithContext(ctx, method, s.url+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header = s.header()
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s answered %d %.200s", path, resp.StatusCode, text)
	}
	return err
}

// user is a vegeta attacker with a single worker, which makes the load closed.
type user struct {
	site   *site
	random *rand.Rand
	hot    *rand.Zipf
}

func (s *site) user(number int) *user {
	random := rand.New(rand.NewPCG(s.seed, uint64(number)+1))
	return &user{site: s, random: random, hot: rand.NewZipf(random, 1.1, 8, uint64(s.entries-1))}
}

// pace implements [vegeta.Pacer].
type pace struct {
	random *rand.Rand
	think  time.Duration
	end    time.Duration // no request begins after this
}

// Pace is called as soon as a request has begun. The worker sends the next request only after the response.
func (p pace) Pace(elapsed time.Duration, hits uint64) (wait time.Duration, stop bool) {
	wait = time.Duration((0.5 + p.random.Float64()) * float64(p.think))
	if hits == 0 { // users start at different times
		wait = time.Duration(p.random.Float64() * float64(p.think))
	}
	return wait, elapsed+wait >= p.end
}

// Rate is part of the interface, for vegeta's reports.
func (p pace) Rate(time.Duration) float64 { return 1 / p.think.Seconds() }

// next implements [vegeta.Targeter].
func (u *user) next(t *vegeta.Target) error {
	n := int(u.hot.Uint64())
	t.Header, t.Method, t.Body = u.site.header(), http.MethodGet, nil
	switch dice := u.random.IntN(100); {
	case dice < 45:
		t.URL = u.site.url + getPath + "?key=" + url.QueryEscape(u.site.key(n))
	case dice < 70:
		t.URL = u.site.url + listPath + "?includeValues=true&prefix=" + url.QueryEscape(u.site.folder(n))
	case dice < 90:
		t.Method, t.URL, t.Body = http.MethodPost, u.site.url+upsertPath, u.site.entry(n, u.random)
	default:
		low := u.random.IntN(900)
		t.URL = fmt.Sprintf("%s%s?limit=20&index=%s&range=score:%d..%d", u.site.url, queryPath, url.QueryEscape(fmt.Sprintf("%sby-group:g%d", u.site.prefix, n%20)), low, low+100)
	}
	return nil
}

// attack starts all users and waits until each has its last response.
func (s *site) attack(ctx context.Context, progress io.Writer) *seen {
	bar := progressbar.NewOptions(int(s.duration.Seconds()), progressbar.OptionSetWriter(progress), progressbar.OptionSetDescription("loading"),
		progressbar.OptionSetVisibility(isTerminal(progress)), progressbar.OptionClearOnFinish())
	began := time.Now()
	all := newSeen(s, began)
	results := make(chan *vegeta.Result, 1024)
	var users sync.WaitGroup
	for number := range s.users {
		u := s.user(number)
		attacker := vegeta.NewAttacker(vegeta.Workers(1), vegeta.MaxWorkers(1), vegeta.Client(s.client))
		// Pacer and targeter run concurrently, so each has its own random source.
		p := pace{random: rand.New(rand.NewPCG(s.seed, uint64(number)<<32)), think: s.think, end: s.duration}
		end := context.AfterFunc(ctx, func() { attacker.Stop() })
		users.Go(func() {
			defer end()
			for r := range attacker.Attack(u.next, p, 0, "") {
				results <- r
			}
		})
	}
	go func() {
		users.Wait()
		close(results)
	}()
	for r := range results {
		all.add(r)
		_ = bar.Set(min(int(time.Since(began).Seconds()), int(s.duration.Seconds())))
	}
	_ = bar.Finish()
	all.total.Close()
	return all
}

func isTerminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

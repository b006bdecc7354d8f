package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"netlify-supabase-kv/pkg/mirror"
)

// mirrored reports whether the functions copy their writes to Blobs.
func mirrored() bool { return os.Getenv("KV_MIRROR_WRITES") == "true" }

// lacksMirror is for faults that affect only mirrored writes.
func lacksMirror() string {
	if !mirrored() {
		return "mirrored writes: make faults MIRROR=true"
	}
	return ""
}

// blobsFault configures the faults of the Blobs stand-in.
type blobsFault struct {
	Seed        uint64  `json:"seed"`
	ServerError float64 `json:"server_error"`
	LostAnswer  float64 `json:"lost_answer"`
	Delayed     float64 `json:"delayed"`
	Delay       int     `json:"delay_ms"`
}

func blobsDo(f blobsFault) func(context.Context, *platform, time.Duration, *rand.Rand) error {
	return func(ctx context.Context, p *platform, hold time.Duration, random *rand.Rand) error {
		f := f
		f.Seed = random.Uint64()
		body, err := json.Marshal(f)
		if err != nil {
			return err
		}
		if err := p.request(ctx, http.MethodPut, p.blobsFaults, body, nil); err != nil {
			return err
		}
		slept := sleep(ctx, hold)
		var decoded struct{ Counts map[string]int }
		err = p.request(context.WithoutCancel(ctx), http.MethodGet, p.blobsFaults, nil, &decoded)
		if err == nil && len(decoded.Counts) == 0 {
			err = errors.New("the fault of Blobs hit no request")
		}
		return errors.Join(slept, err, p.request(context.WithoutCancel(ctx), http.MethodDelete, p.blobsFaults, nil, nil))
	}
}

const storesDiffer = "the two stores differ after a repair"

// settleWithin is the time limit until both stores are the same. Requests that were sent during a fault may still
// arrive.
const settleWithin = 20 * time.Second

// settle runs `migrate-kv-store repair` after the load, as an operator would, and checks that both stores are the
// same. It returns the number of copies that were made.
func (l *load) settle(ctx context.Context) (repaired int, err error) {
	for deadline := time.Now().Add(settleWithin); ; {
		n, left, err := repair(ctx)
		if err != nil {
			return repaired, err
		}
		repaired += n
		key, difference, err := l.difference(ctx)
		if err != nil {
			return repaired, err
		}
		if left > 0 && difference == "" {
			difference = fmt.Sprintf("%d outbox entries are left", left)
		}
		if difference == "" {
			return repaired, nil
		}
		if time.Now().After(deadline) {
			l.violates(storesDiffer, key, "%s", difference)
			return repaired, nil
		}
		if err := sleep(ctx, time.Second); err != nil {
			return repaired, err
		}
	}
}

func repair(ctx context.Context) (repaired, left int, err error) {
	cmd := exec.CommandContext(ctx, "go", "run", "./scripts/migrate-kv-store", "repair", "--primary", "supabase", "--json", "--quiet")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, runErr := cmd.Output() // it also fails if something remains, which its output says
	var decoded mirror.Repairs
	if err := json.Unmarshal(out, &decoded); err != nil {
		return 0, 0, fmt.Errorf("migrate-kv-store repair: %w", errors.Join(runErr, err, errors.New(strings.TrimSpace(stderr.String()))))
	}
	return decoded.Repaired, decoded.OtherPrimary + decoded.Failed, nil
}

// difference returns a key for which kv-list and kv-list-blob return different values, with both values.
func (l *load) difference(ctx context.Context) (key, what string, err error) {
	supabase, err := l.listed(ctx, listPath)
	if err != nil {
		return "", "", err
	}
	blobs, err := l.listed(ctx, listPath+"-blob")
	if err != nil {
		return "", "", err
	}
	all := maps.Clone(supabase)
	maps.Copy(all, blobs)
	for _, key := range sortedKeys(all) {
		if supabase[key] != blobs[key] {
			return key, fmt.Sprintf("Supabase has %.80q, Blobs %.80q", supabase[key], blobs[key]), nil
		}
	}
	return "", "", nil
}

// listed returns the entries of a store, byte for byte. The members of indexes are sorted.
func (l *load) listed(ctx context.Context, path string) (map[string]string, error) {
	var decoded struct{ Data map[string]json.RawMessage }
	if err := l.platform.request(ctx, http.MethodGet, l.platform.base+path+"?includeValues=true&prefix="+url.QueryEscape(l.prefix), nil, &decoded); err != nil {
		return nil, err
	}
	texts := map[string]string{}
	for key, text := range decoded.Data {
		texts[key] = string(text)
		if strings.HasPrefix(key, l.prefix+"x/") {
			var members []string
			if err := json.Unmarshal(text, &members); err != nil {
				return nil, fmt.Errorf("%s: the members of %s: %w", path, key, err)
			}
			slices.Sort(members)
			texts[key] = fmt.Sprint(members)
		}
	}
	return texts, nil
}

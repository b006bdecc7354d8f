#!/usr/bin/env bash
# The runbook of docs/MIGRATION.md and docs/ROLLBACK.md from JavaScript functions to Supabase alone and back, with what these pages say and
# nothing else. `make rehearse` runs it once for each deploy: the variables that a step sets are in the environment, and REHEARSAL is a
# folder that lasts. Netlify's API takes 500 requests a minute here, too.
set -euo pipefail

entries=30
step=$(($(cat "$REHEARSAL/step" 2>/dev/null || echo 0) + 1))
echo "$step" >"$REHEARSAL/step"
if [ -e "$REHEARSAL/failed" ]; then exit 1; fi
trap 'test $? -eq 0 || touch "$REHEARSAL/failed"' EXIT

say() { printf '\n== %s\n' "$*"; }
fail() { echo "FAILED in step $step: $*" >&2; exit 1; }
kv() { .local/bin/kv "$@"; }
migrate() { kv migrate --rate 375 "$@"; }
dir=$REHEARSAL/kv-migration

# expect <status> <text> <command…>: the command ends with the status, and says the text.
expect() {
  local want=$1 text=$2 got=0 out
  shift 2
  out=$("$@" 2>&1) || got=$?
  printf '%s\n' "$out" | sed 's/^/   /'
  [ "$got" = "$want" ] || fail "$* ended with $got, not $want"
  case $out in *"$text"*) ;; *) fail "$* did not say: $text" ;; esac
}

upsert() { curl -fsS -X POST "$KV_BASE_URL/api/kv/upsert" -H 'Content-Type: application/json' -d "$1" >/dev/null; }
delete() { curl -fsS -X POST "$KV_BASE_URL/api/kv/delete" -H 'Content-Type: application/json' -d "{\"key\":\"$1\"}" >/dev/null; }
get() { curl -sS "$KV_BASE_URL/api/kv/get?key=$1"; }
reads() { # <key> <text>
  local got
  got=$(get "$1")
  case $got in *"$2"*) ;; *) fail "kv-get of $1 is $got, without $2" ;; esac
}
answers() { for i in $(seq 1 "$entries"); do get "sessions/$i" >/dev/null; done; curl -fsS "$KV_BASE_URL/api/kv/list?prefix=sessions/&limit=100" >/dev/null; sleep 1; }
blobs_limit() { curl -fsS -X "$1" "${NETLIFY_BLOBS_API_URL%/}/_platform/blobs/faults" ${2:+-d "$2"}; }

[ "$step" = 1 ] && blobs_limit PUT '{"limit":500}' >/dev/null

case $step in
1)
  say "JavaScript functions on Netlify Blobs"
  node scripts/rehearse/site.mjs .local/npm/platform/node_modules "$entries"
  say "1. Back up"
  expect 0 "entries" migrate backup --out "$REHEARSAL/first.ndjson.gz"
  expect 0 "sha256" migrate backup --check "$REHEARSAL/first.ndjson.gz"
  say "2. Plan: the member of a deleted entry speaks against a rule, which only you can decide"
  expect 0 "fail 0" migrate plan --dir "$dir"
  expect 0 "" grep -F '#index:sessions=sessions/{member}' "$dir/index-rules.txt"
  sed -i.before -e 's|^#\(index:sessions=sessions/{member}\)$|\1|' -e 's|^#\(index:by:[0-9]=sessions/{member}\)$|\1|' "$dir/index-rules.txt"
  ;;
2)
  say "4. Deploy, mirror on: the Go functions answer from Blobs"
  reads sessions/7 '"score":7'
  upsert '{"key":"sessions/new","value":{"score":100},"indexes":[{"key":"index:sessions","member":"new"}]}'
  say "5. Migrate"
  expect 0 "0 failed" migrate run --dir "$dir"
  upsert '{"key":"sessions/7","value":{"score":77}}'
  delete sessions/9
  expect 0 "index:sessions=sessions/{member}" migrate run --dir "$REHEARSAL/another-machine"
  say "6. Verify"
  expect 0 "0 missing, 0 extra, 0 different" migrate verify --dir "$dir"
  expect 1 "Supabase is not ready to" migrate ready --require 20 --for 0s
  ;;
3)
  say "7. Compare reads"
  answers
  sleep 31 # what an instance compared since it last told waits for so long
  answers
  expect 0 "Supabase is ready to" migrate ready --require 20 --for 0s
  expect 0 "0 remaining" migrate repair --primary blobs
  ;;
4)
  say "7. Switch: Supabase answers, and Blobs follows"
  reads sessions/7 '"score":77'
  reads sessions/9 'Key not found'
  reads logo 'is not JSON'
  expect 0 "no JSON" curl -fsS "$KV_BASE_URL/api/kv/entries/kv/logo"
  upsert '{"key":"sessions/after","value":{"score":200},"indexes":[{"key":"index:sessions","member":"after"}]}'
  delete sessions/11
  curl -fsS "$KV_BASE_URL/api/kv/query?index=index:sessions:12" | grep -q '"sessions/12"' || fail "kv-query by index"
  answers
  expect 0 "0 remaining" migrate repair --primary supabase
  expect 0 "0 missing, 0 extra, 0 different" migrate verify --dir "$dir"
  expect 0 "going back to Blobs is safe" migrate ready --for 1h
  ;;
5)
  say "The way back: one variable"
  reads sessions/after '"score":200'
  reads sessions/11 'Key not found'
  upsert '{"key":"sessions/back","value":{"score":300}}'
  expect 0 "0 missing, 0 extra, 0 different" migrate verify --dir "$dir"
  ;;
6)
  say "Switch again, and 8. after 7 days: mirror off"
  reads sessions/back '"score":300'
  upsert '{"key":"sessions/alone","value":{"score":400},"indexes":[{"key":"index:sessions","member":"alone"}]}'
  delete sessions/12
  say "Another store of the site"
  expect 0 "fail 0" migrate plan --store files --dir "$dir-files"
  expect 0 "1 migrated" migrate run --store files --dir "$dir-files"
  expect 0 "identical     1" migrate verify --store files --dir "$dir-files"
  expect 0 "the store files is ready" migrate ready --store files
  expect 0 '{"by":"ada"}' curl -fsSi "$KV_BASE_URL/api/kv/entries/files/images/logo.svg"
  expect 2 "for the store kv alone" migrate repair --store files --primary supabase
  expect 0 "The migration is closed." migrate close --store files
  expect 0 "The migration is closed." migrate close
  expect 2 "was closed" migrate run --dir "$dir"
  ;;
7)
  say "Back once the mirror is off: mirror on, and Blobs gets what it lacks"
  expect 0 "entries" migrate backup --from supabase --out "$REHEARSAL/now.ndjson.gz"
  expect 0 "restored" migrate restore "$REHEARSAL/now.ndjson.gz" --to blobs --overwrite
  delete sessions/12 # once more: Blobs had it still
  expect 0 "0 missing, 0 extra, 0 different" migrate verify --dir "$dir"
  ;;
8)
  say "Blobs answers, as in the beginning"
  reads sessions/alone '"score":400'
  reads sessions/12 'Key not found'
  reads sessions/7 '"score":77'
  reads profile/1 'ends as a session does'
  reads logo 'is not JSON'
  expect 0 "entries" migrate backup --out "$REHEARSAL/last.ndjson.gz"
  counts=$(blobs_limit GET)
  echo "$counts"
  case $counts in *'"over_limit"'*) fail "more than 500 requests a minute" ;; esac
  say "The rehearsal went through"
  ;;
esac

# Everything a person or a machine runs goes through here; `make` alone lists it.
.DEFAULT_GOAL := help

# The platform's program, built and then run in place of the shell: unlike `go run`, it passes signals and exit statuses on.
# Renamed into place, since another `make` may be running the old one. Coverage flags are for the functions, not for this.
PLATFORM = mkdir -p .local/bin && GOFLAGS=-buildvcs=false go build -o .local/bin/platform.$$$$ ./scripts/platform && \
	mv -f .local/bin/platform.$$$$ .local/bin/platform && exec .local/bin/platform

.PHONY: help
help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf '  %-10s %s\n' "$$name" "$$text"; done

.PHONY: up
up: ## start Postgres, PostgREST, Blobs and warm functions in the background (PORT_BASE=20000 moves every port)
	@$(PLATFORM) up

.PHONY: down
down: ## stop what up started; data stays
	@$(PLATFORM) down

.PHONY: reset
reset: ## remove all local data
	@$(PLATFORM) reset

.PHONY: dev
dev: ## the same database under netlify dev, at http://localhost:8888, until Ctrl-C
	@$(PLATFORM) dev

.PHONY: check
check: ## formatting, vet, staticcheck, and that go.mod is tidy
	@unformatted=$$(gofmt -l functions pkg scripts tests); test -z "$$unformatted" || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	@go vet ./...
	@go tool staticcheck ./...
	@go mod tidy -diff

COVERAGE = $(CURDIR)/.local/coverage

# An empty platform of its own, whose functions count what is covered; the command does not inherit that.
ON_PLATFORM = export GOFLAGS='-buildvcs=false -cover -covermode=atomic' GOCOVERDIR=$(COVERAGE)/functions; $(PLATFORM) run
PLAIN = env -u GOFLAGS -u GOCOVERDIR

.PHONY: test
test: check ## test everything on an empty platform of its own, on free ports
	@rm -rf $(COVERAGE) && mkdir -p $(COVERAGE)/functions
	@$(ON_PLATFORM) --dev -- $(PLAIN) $(MAKE) --no-print-directory test-on-platform
	@$(ON_PLATFORM) --env KV_API_TOKEN=first,second --env KV_READ_TOKEN=reader -- $(PLAIN) go test -count=1 -run 'Token|Smoke' ./tests/e2e
	@$(ON_PLATFORM) --env KV_CACHE_MAX_STALE=0 --env 'KV_WARM_KEYS=e2e/warm/*' -- $(PLAIN) go test -count=1 ./tests/e2e
	@$(ON_PLATFORM) --env KV_CACHE=off --env KV_MIRROR_WRITES=true --env KV_COMPARE_READS=0.3 -- $(PLAIN) go test -count=1 ./tests/e2e
	@$(ON_PLATFORM) --env USE_SUPABASE_KV=false -- $(PLAIN) go test -count=1 ./tests/e2e
	@$(ON_PLATFORM) --env USE_SUPABASE_KV=false --env KV_MIRROR_WRITES=true --env KV_COMPARE_READS=0.3 -- $(PLAIN) go test -count=1 ./tests/e2e
	@go tool covdata textfmt -i=$(COVERAGE)/functions -o=$(COVERAGE)/functions.txt
	@go run ./scripts/coverage -skip pkg/kv/kvtest -skip pkg/blobs/blobstest -skip pkg/migrate/migratetest $(COVERAGE)/functions.txt $(COVERAGE)/unit.txt

# What `make test` runs on its platform; `make up` and `set -a; . .local/env` will do for a look at one of them.
.PHONY: test-on-platform
test-on-platform:
	go test -count=1 ./tests/docs
	go test -count=1 -race -coverpkg=./functions/...,./pkg/... -coverprofile=$(COVERAGE)/unit.txt ./pkg/...
	go test -count=1 -race ./scripts/...
	go test -count=1 -race ./tests/schema
	go test -count=1 ./tests/e2e
	KV_BASE_URL=$$KV_DEV_URL KV_HOST_URL= E2E_SMOKE=1 go test -count=1 ./tests/e2e

.PHONY: e2e
e2e: ## the end-to-end tests against KV_BASE_URL, or against what `make up` started
	@if [ -z "$$KV_BASE_URL" ] && [ -f .local/env ]; then set -a; . ./.local/env; set +a; fi; go test -count=1 -v ./tests/e2e

.PHONY: scale
scale: ## plans of every read at ENTRIES (1,000,000), and how its cost grows from 10,000: 15 minutes, on a platform of its own
	@$(PLATFORM) run -- env KV_SCHEMA_ENTRIES=$(or $(ENTRIES),1000000) KV_SCHEMA_GROWTH=1 \
		go test -count=1 -timeout 60m -v -run 'Plans|CostsDoNotGrow' ./tests/schema

.PHONY: bench
bench: ## measure the functions, on a platform of its own, into .local/bench.json (ARGS=--help)
	@$(PLATFORM) run -- go run ./scripts/bench --out $(CURDIR)/.local/bench.json $(ARGS)

.PHONY: migrate
migrate: ## bring Netlify Blobs and Supabase together: make migrate ARGS='repair --first supabase' (ARGS=--help)
	@if [ -z "$$SUPABASE_URL" ] && [ -f .local/env ]; then set -a; . ./.local/env; set +a; fi; mkdir -p .local/bin && \
		GOFLAGS=-buildvcs=false go build -o .local/bin/migrate-kv-store ./scripts/migrate-kv-store && exec .local/bin/migrate-kv-store $(ARGS)

.PHONY: export
export: ## write what a query finds into one file: make export ARGS='--prefix docs/ --out docs.csv' (ARGS=--help)
	@if [ -z "$$KV_BASE_URL" ] && [ -f .local/env ]; then set -a; . ./.local/env; set +a; fi; mkdir -p .local/bin && \
		GOFLAGS=-buildvcs=false go build -o .local/bin/export ./scripts/export && exec .local/bin/export $(ARGS)

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

# The scanners are pinned here, not in go.mod: the functions need nothing of the hundred modules that they are made of. They
# are built once and kept.
GOSEC = gosec@v2.30.0
GOVULNCHECK = govulncheck@v1.9.0
TOOLS = $(CURDIR)/.local/tools

$(TOOLS)/$(GOSEC):
	@mkdir -p $(TOOLS) && GOFLAGS=-buildvcs=false GOBIN=$(TOOLS) go install github.com/securego/gosec/v2/cmd/$(GOSEC) && mv -f $(TOOLS)/gosec $@

$(TOOLS)/$(GOVULNCHECK):
	@mkdir -p $(TOOLS) && GOFLAGS=-buildvcs=false GOBIN=$(TOOLS) go install golang.org/x/vuln/cmd/$(GOVULNCHECK) && mv -f $(TOOLS)/govulncheck $@

# Programs of whoever runs them, on their own machine, and the package that is one of them: they read files that are named to them
# (G122, G304, G703), ask addresses that the environment names (G704), start programs (G204), make files that others may read unless
# they hold a secret (G301, G302, G306), ignore what closing says (G104), convert ports and process ids (G115) and roll dice (G404).
GOSEC_SCRIPTS = (scripts|tests|pkg/migrate)/.*:G104,G115,G122,G204,G301,G302,G304,G306,G404,G703,G704

# With GOTOOLCHAIN=auto, what is scanned is what Netlify builds: with the toolchain that go.mod names, or a newer one.
VULNCHECK = GOTOOLCHAIN=auto $(TOOLS)/$(GOVULNCHECK)
VULNDB = $(CURDIR)/.local/vulndb

.PHONY: lint
lint: check $(TOOLS)/$(GOSEC) $(TOOLS)/$(GOVULNCHECK) ## check, and the code and its dependencies scanned for security: gosec, govulncheck
	@$(TOOLS)/$(GOSEC) -quiet -nosec-require-rules -nosec-require-justification -exclude-rules='$(GOSEC_SCRIPTS)' ./...
	@echo 'gosec found nothing'
	@$(VULNCHECK) ./... || { status=$$?; test $$status -ne 3 || exit 3; \
		echo 'Its database, vuln.go.dev, could not be asked: making it of the module golang.org/x/vulndb.'; \
		$(MAKE) --no-print-directory $(VULNDB) && $(VULNCHECK) -db file://$(VULNDB) ./...; }

# The vulnerabilities that vuln.go.dev has, by way of the module proxy. Made anew each time, since they grow.
.PHONY: $(VULNDB)
$(VULNDB):
	@rm -rf $@ && osv=$$(go mod download -json golang.org/x/vulndb@latest | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",$$/\1/p')/data/osv && \
		GOTOOLCHAIN=auto go run golang.org/x/vulndb/cmd/indexdb@latest -vulns "$$osv" -out $@

COVERAGE = $(CURDIR)/.local/coverage

# An empty platform of its own, whose functions count what is covered; the command does not inherit that.
ON_PLATFORM = export GOFLAGS='-buildvcs=false -cover -covermode=atomic' GOCOVERDIR=$(COVERAGE)/functions; $(PLATFORM) run
PLAIN = env -u GOFLAGS -u GOCOVERDIR

# Go's own limit, 10 minutes a package, would end it on a machine that is only slow.
GO_TEST = go test -count=1 -timeout 30m

.PHONY: test
test: check ## test everything on an empty platform of its own, on free ports
	@rm -rf $(COVERAGE) && mkdir -p $(COVERAGE)/functions
	@$(ON_PLATFORM) --dev -- $(PLAIN) $(MAKE) --no-print-directory test-on-platform
	@$(ON_PLATFORM) --env KV_API_TOKEN=first,second --env KV_READ_TOKEN=reader -- $(PLAIN) $(GO_TEST) -run 'Token|Smoke' ./tests/e2e
	@$(ON_PLATFORM) --env KV_CACHE_MAX_STALE=0 --env 'KV_WARM_KEYS=e2e/warm/*' -- $(PLAIN) $(GO_TEST) ./tests/e2e
	@$(ON_PLATFORM) --env KV_CACHE=off --env KV_MIRROR_WRITES=true --env KV_COMPARE_READS=0.3 -- $(PLAIN) $(GO_TEST) ./tests/e2e
	@$(ON_PLATFORM) --env USE_SUPABASE_KV=false -- $(PLAIN) $(GO_TEST) ./tests/e2e
	@$(ON_PLATFORM) --env USE_SUPABASE_KV=false --env KV_MIRROR_WRITES=true --env KV_COMPARE_READS=0.3 -- $(PLAIN) $(GO_TEST) ./tests/e2e
	@go tool covdata textfmt -i=$(COVERAGE)/functions -o=$(COVERAGE)/functions.txt
	@go run ./scripts/coverage -skip pkg/kv/kvtest -skip pkg/blobs/blobstest -skip pkg/migrate/migratetest $(COVERAGE)/functions.txt $(COVERAGE)/unit.txt

# One package at a time (-p 1): some measure staleness and races, and are not to wait for another's load.
# What `make test` runs on its platform; `make up` and `set -a; . .local/env` will do for a look at one of them.
.PHONY: test-on-platform
test-on-platform:
	$(GO_TEST) ./tests/docs ./tests/load ./tests/faults
	$(GO_TEST) -race -p 1 -coverpkg=./functions/...,./pkg/... -coverprofile=$(COVERAGE)/unit.txt ./pkg/...
	$(GO_TEST) -race ./scripts/...
	$(GO_TEST) -race ./tests/schema
	$(GO_TEST) ./tests/e2e
	KV_BASE_URL=$$KV_DEV_URL KV_HOST_URL= E2E_SMOKE=1 $(GO_TEST) ./tests/e2e
	@$(MAKE) --no-print-directory fuzz

# Each package is built once for all of its targets. What a target fails with is kept in the package's testdata/fuzz, where
# `go test` finds it from then on.
# Go sometimes reports that the time is over as a failure, without an input that failed: that is none.
.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (3s); with SUPABASE_URL set, against the database too
	@mkdir -p .local/fuzz; log=$(CURDIR)/.local/fuzz/log; \
	for dir in $$(grep -rl '^func Fuzz' --include='*_test.go' $(or $(PACKAGES),functions pkg scripts tests) | xargs -n 1 dirname | sort -u); do \
		binary=$(CURDIR)/.local/fuzz/$$(echo $$dir | tr / -).test && go test -c -fuzz=. -o $$binary ./$$dir && \
		( cd $$dir && for target in $$($$binary -test.list '^Fuzz'); do \
			$$binary -test.run '^$$' -test.fuzz "^$$target\$$" -test.fuzztime $(or $(FUZZTIME),3s) -test.fuzzminimizetime 500ms \
				-test.fuzzcachedir "$$(go env GOCACHE)/fuzz/kv/$$dir" >$$log 2>&1 || \
				{ grep -q '^ *context deadline exceeded$$' $$log && ! grep -Eq 'Failing input|panic:|\.go:[0-9]' $$log; } || { cat $$log; exit 1; }; \
			echo "$$dir $$target $$(grep execs: $$log | tail -n 1)"; done ) || exit 1; done

.PHONY: e2e
e2e: ## the end-to-end tests against KV_BASE_URL, or against what `make up` started
	@if [ -z "$$KV_BASE_URL" ] && [ -f .local/env ]; then set -a; . ./.local/env; set +a; fi; go test -count=1 -v ./tests/e2e

.PHONY: scale
scale: ## plans of every read at ENTRIES (1,000,000), and how its cost grows from 10,000: 15 minutes, on a platform of its own
	@$(PLATFORM) run -- env KV_SCHEMA_ENTRIES=$(or $(ENTRIES),1000000) KV_SCHEMA_GROWTH=1 \
		go test -count=1 -timeout 60m -v -run 'Plans|CostsDoNotGrow' ./tests/schema

.PHONY: bench
bench: ## measure the functions, on a platform of its own, into .local/bench.json (SCALE=full: a million entries too; ARGS=--help)
	@$(PLATFORM) run -- go run ./scripts/bench --out $(CURDIR)/.local/bench.json \
		$(if $(filter full,$(SCALE)),--entries 10000$(comma)100000$(comma)1000000) $(ARGS)

comma = ,

.PHONY: benchstat
benchstat: ## time single steps of the Go code into .local/benchstat.txt; OLD=file compares with such a file
	@mkdir -p .local && go test -run '^$$' -bench . -benchtime 0.2s -count 10 ./pkg/netlify ./pkg/kv >.local/benchstat.txt || { cat .local/benchstat.txt; exit 1; }
	@go tool benchstat $(OLD) .local/benchstat.txt

.PHONY: load
load: ## 1,000 users at once for a minute, on a platform of its own, into .local/load.json (ARGS=--help)
	@$(PLATFORM) run -- go run ./tests/load --out $(CURDIR)/.local/load.json $(ARGS)

.PHONY: faults
faults: ## break a platform of its own in many ways under load, and check what clients saw, into .local/faults.json (MIRROR=true: with mirrored writes; ARGS=--help)
	@$(PLATFORM) run --instances 4 $(if $(filter true,$(MIRROR)),--env KV_MIRROR_WRITES=true) -- go run ./tests/faults --out $(CURDIR)/.local/faults.json $(ARGS)

.PHONY: migrate
migrate: ## bring Netlify Blobs and Supabase together: make migrate ARGS='repair --first supabase' (ARGS=--help)
	@if [ -z "$$SUPABASE_URL" ] && [ -f .local/env ]; then set -a; . ./.local/env; set +a; fi; mkdir -p .local/bin && \
		GOFLAGS=-buildvcs=false go build -o .local/bin/migrate-kv-store ./scripts/migrate-kv-store && exec .local/bin/migrate-kv-store $(ARGS)

.PHONY: migrate-scale
migrate-scale: ## migrate ENTRIES (100,000), each in INDEXES (2) of 20 indexes, and say how long it took and in what memory
	@$(PLATFORM) run -- env MIGRATE_TEST_ENTRIES=$(or $(ENTRIES),100000) MIGRATE_TEST_INDEXES=$(or $(INDEXES),2) \
		go test -count=1 -timeout 60m -v -run ManyEntries ./scripts/migrate-kv-store

.PHONY: export
export: ## write what a query finds into one file: make export ARGS='--prefix docs/ --out docs.csv' (ARGS=--help)
	@if [ -z "$$KV_BASE_URL" ] && [ -f .local/env ]; then set -a; . ./.local/env; set +a; fi; mkdir -p .local/bin && \
		GOFLAGS=-buildvcs=false go build -o .local/bin/export ./scripts/export && exec .local/bin/export $(ARGS)

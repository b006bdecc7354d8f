# Everything a person or a machine runs goes through here; `make` alone lists it.
.DEFAULT_GOAL := help

# What is built here does not name this folder, so that Go's cache serves every checkout.
FLAGS = -buildvcs=false -trimpath

# A program under scripts, built and then run in place of the shell: unlike `go run`, it passes signals and exit statuses on.
# Renamed into place, since another `make` may be running the old one. Coverage flags are for the functions, not for these.
build = mkdir -p .local/bin && GOFLAGS='$(FLAGS)' go build -o .local/bin/$(1).$$$$ ./scripts/$(1) && mv -f .local/bin/$(1).$$$$ .local/bin/$(1)
PLATFORM = $(if $(PLATFORM_IS_BUILT),,$(call build,platform) &&) exec .local/bin/platform

.PHONY: help
help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf '  %-10s %s\n' "$$name" "$$text"; done

.PHONY: up
up: ## start Postgres, PostgREST, Blobs and warm functions in the background (KV_LOCAL_PORT_BASE=20000 moves every port)
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

# These are pinned here, not in go.mod: the functions need nothing of the hundred modules that they are made of. They are built
# once and kept.
ACTIONLINT = actionlint@v1.7.12
GOSEC = gosec@v2.30.0
GOVULNCHECK = govulncheck@v1.9.0
TOOLS = $(CURDIR)/.local/tools

$(TOOLS)/$(ACTIONLINT):
	@mkdir -p $(TOOLS) && GOFLAGS='$(FLAGS)' GOBIN=$(TOOLS) go install github.com/rhysd/actionlint/cmd/$(ACTIONLINT) && mv -f $(TOOLS)/actionlint $@

.PHONY: check
check: $(TOOLS)/$(ACTIONLINT) ## formatting, vet, staticcheck, that go.mod is tidy, and the workflows: actionlint
	@unformatted=$$(gofmt -l functions pkg scripts tests); test -z "$$unformatted" || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	@go vet ./...
	@go tool staticcheck ./...
	@go mod tidy -diff
	@$(TOOLS)/$(ACTIONLINT)

GENERATED = @go test -count=1 -run Documentation ./pkg/config $(1) && $(PLATFORM) run --name generate --functions=false -- \
	go test -count=1 -run SchemaFile ./tests/schema $(1)

.PHONY: generate
generate: ## write what is made of other files: the tables of variables in README.md, docs and .env.example, and supabase/schema.sql
	$(call GENERATED,-update)

.PHONY: verify
verify: ## fail where a generated file is not what make generate would write
	$(call GENERATED)

$(TOOLS)/$(GOSEC):
	@mkdir -p $(TOOLS) && GOFLAGS='$(FLAGS)' GOBIN=$(TOOLS) go install github.com/securego/gosec/v2/cmd/$(GOSEC) && mv -f $(TOOLS)/gosec $@

$(TOOLS)/$(GOVULNCHECK):
	@mkdir -p $(TOOLS) && GOFLAGS='$(FLAGS)' GOBIN=$(TOOLS) go install golang.org/x/vuln/cmd/$(GOVULNCHECK) && mv -f $(TOOLS)/govulncheck $@

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

# --- tests: stages that run side by side, each on a platform of its own ---

# The platform's program is built once for all of them.
STAGES = rm -rf $(COVERAGE) && $(call build,platform) && $(call build,stages) && export PLATFORM_IS_BUILT=1 && exec .local/bin/stages

.PHONY: test
test: ## test everything that a change can break, from nothing, in minutes (one stage alone: make test-e2e, test-race, test-unit, …)
	@$(STAGES) e2e,functions,unit,race,schema,scripts,check coverage

.PHONY: test-long
test-long: export LONG = true
test-long: export CACHE_TEST_ROUNDS ?= 20000
test-long: export CACHE_TEST_SECONDS ?= 60
test-long: export E2E_QUERIES ?= 2000
test-long: export KV_SCHEMA_RACES ?= 20000
test-long: export KV_SCHEMA_ENTRIES ?= 1000000
test-long: export KV_SCHEMA_MEGABYTES ?= 300
test-long: export E2E_MEGABYTES ?= 300
test-long: export MIGRATE_TEST_KILLS ?= 50
test-long: export MIGRATE_TEST_CUTS ?= 6
test-long: export MIGRATE_TEST_DAMAGES ?= 3
test-long: export MIGRATE_TEST_STRIDE ?= 1
test-long: export MIGRATE_TEST_ENTRIES ?= 2000
test-long: export MIGRATE_TEST_MEMORY ?= 200000
test-long: export MIRROR_TEST_KEYS ?= 1500
test-long: export MIRROR_TEST_STEPS ?= 60
test-long: export FUZZTIME ?= 1m
test-long: ## test everything, whole: every mode, thousands of random rounds, a million entries, minutes of fuzzing (hours)
	@$(STAGES) -side-by-side 2 e2e,functions,unit,race,schema,scripts,check,road-build,road-database,road-far coverage,fuzz

test-%: export GOFLAGS = $(FLAGS)

# Go's own limit, 10 minutes a package, would end it on a machine that is only slow.
GO_TEST = go test -count=1 -timeout $(if $(LONG),3h,30m)

COVERAGE = $(CURDIR)/.local/coverage

# Functions that are built so count what is covered; the command that runs on their platform does not inherit that.
COVERED = export GOFLAGS='$(FLAGS) -cover -covermode=atomic' GOCOVERDIR=$(COVERAGE)/functions;
UNCOVERED = env -u GOCOVERDIR GOFLAGS='$(FLAGS)'

.PHONY: test-check
test-check: check

# Coverage is measured without the race detector, beside which counting every loop would take most of the time.
.PHONY: test-unit
test-unit:
	@mkdir -p $(COVERAGE)
	@$(PLATFORM) run --name test-unit --functions=false -- \
		$(GO_TEST) -coverpkg=./functions/...,./pkg/... -coverprofile=$(COVERAGE)/unit.txt ./pkg/...

# The packages whose goroutines share memory; make test-long has them all.
.PHONY: test-race
test-race:
	@$(PLATFORM) run --name test-race --functions=false -- $(GO_TEST) -race $(if $(LONG),./pkg/...,./pkg/blobs ./pkg/kv ./pkg/mirror)

# Without the race detector: what races here is SQL.
.PHONY: test-schema
test-schema:
	@$(PLATFORM) run --name test-schema --functions=false -- $(GO_TEST) ./tests/schema

# Programs that run their own platforms, or none.
.PHONY: test-scripts
test-scripts:
	@$(GO_TEST) -race ./scripts/coverage/... ./scripts/platform/... ./scripts/stages/...

# Programs that call functions, and a few requests through netlify dev.
.PHONY: test-functions
test-functions:
	@$(PLATFORM) run --name test-functions --dev -- $(MAKE) --no-print-directory on-functions

.PHONY: on-functions
on-functions:
	@$(GO_TEST) ./tests/docs ./tests/load ./tests/faults ./tests/buildbot
	@$(GO_TEST) $(if $(LONG),-race) ./scripts/bench/... ./scripts/internal/... ./scripts/kv/...
	@$(GO_TEST) ./tests/preview
	@KV_BASE_URL=$$KV_DEV_URL KV_HOST_URL= E2E_SMOKE=1 $(GO_TEST) ./tests/e2e

# Every test with the default settings, and in other modes the tests that depend on what the mode changes; LONG=true: every test in
# every mode.
ONLY = $(if $(LONG),,E2E_ONLY=$(1))
.PHONY: test-e2e
test-e2e:
	@mkdir -p $(COVERAGE)/functions
	@$(COVERED) $(PLATFORM) run --name test-e2e \
		--mode '$(call ONLY,token) KV_API_TOKEN=first,second KV_READ_TOKEN=reader' \
		--mode '$(call ONLY,cache) KV_CACHE_MAX_STALE=0 KV_WARM_KEYS=e2e/warm/*' \
		--mode '$(call ONLY,store) KV_CACHE=off KV_MIRROR_WRITES=true KV_COMPARE_READS=0.3' \
		--mode '$(call ONLY,store) USE_SUPABASE_KV=false' \
		--mode '$(call ONLY,store) USE_SUPABASE_KV=false KV_MIRROR_WRITES=true KV_COMPARE_READS=0.3' \
		-- $(UNCOVERED) $(GO_TEST) ./tests/e2e

# Of what the unit tests and the functions of the end-to-end tests ran.
.PHONY: test-coverage
test-coverage:
	@go tool covdata textfmt -i=$(COVERAGE)/functions -o=$(COVERAGE)/functions.txt
	@go run ./scripts/coverage -skip pkg/kv/kvtest -skip pkg/blobs/blobstest -skip pkg/migrate/migratetest $(COVERAGE)/functions.txt $(COVERAGE)/unit.txt

.PHONY: test-fuzz
test-fuzz:
	@$(PLATFORM) run --name test-fuzz --functions=false -- $(MAKE) --no-print-directory fuzz

.PHONY: road
road: ## what a real Netlify site and Supabase project would meet, by the vendors' own tools: builds, the Supabase CLI, Postgres 15, 150 ms
	@$(STAGES) road-build,road-database,road-far

# Builds from empty caches with an older Go, and every kind of site that kv add knows, with Netlify's own build.
.PHONY: test-road-build
test-road-build:
	@LONG=true $(GO_TEST) ./tests/buildbot ./scripts/kv/internal/add

.PHONY: test-road-database
test-road-database:
	@$(PLATFORM) run --name road-database --functions=false -- env ROAD=1 $(GO_TEST) -run 'SupabaseCLI|ForeignTable' ./scripts/platform
	@$(PLATFORM) run --name road-database --functions=false --postgres 15 -- $(GO_TEST) ./tests/schema

# The end-to-end tests, as against a site far away.
.PHONY: test-road-far
test-road-far:
	@$(PLATFORM) run --name road-far -- env PREVIEW_FAR=1 $(GO_TEST) -run FarAway ./tests/preview

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

# The tests' own program, in place of the shell, gets the signal that ends it early: it then removes what it wrote.
.PHONY: e2e
e2e: ## the end-to-end tests against KV_BASE_URL, or against what `make up` started (ARGS='-test.run Smoke')
	@if [ -z "$$KV_BASE_URL" ] && [ -f .local/env ]; then set -a; . ./.local/env; set +a; fi; mkdir -p .local/bin && \
		GOFLAGS='$(FLAGS)' go test -c -o .local/bin/e2e.$$$$ ./tests/e2e && mv -f .local/bin/e2e.$$$$ .local/bin/e2e && cd tests/e2e && \
		exec ../../.local/bin/e2e -test.v -test.timeout 15m $(ARGS)

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
migrate: ## bring Netlify Blobs and Supabase together: make migrate ARGS='repair --primary supabase' (ARGS=--help)
	@if [ -z "$$SUPABASE_URL" ] && [ -f .local/env ]; then set -a; . ./.local/env; set +a; fi; $(call build,kv) && exec .local/bin/kv migrate $(ARGS)

.PHONY: migrate-scale
migrate-scale: ## plan, migrate and verify a million made-up entries, and ENTRIES (100,000) of Blobs, each in INDEXES (2) of 20 indexes; say how long it took and in what memory
	@$(PLATFORM) run -- env MIGRATE_TEST_ENTRIES=$(or $(ENTRIES),100000) MIGRATE_TEST_INDEXES=$(or $(INDEXES),2) MIGRATE_TEST_MEMORY=200000 \
		go test -count=1 -timeout 120m -v -run 'ManyEntries|MemoryDoesNotGrow' ./pkg/migrate ./scripts/internal/migration

.PHONY: export
export: ## write what a query finds into one file: make export ARGS='--prefix docs/ --out docs.csv' (ARGS=--help)
	@if [ -z "$$KV_BASE_URL" ] && [ -f .local/env ]; then set -a; . ./.local/env; set +a; fi; $(call build,kv) && exec .local/bin/kv export $(ARGS)

.PHONY: kv
kv: ## what people run beside the functions: make kv ARGS='add ../my-site' or ARGS='doctor --dir ../my-site' (ARGS=--help)
	@$(call build,kv) && exec .local/bin/kv $(ARGS)

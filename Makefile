# The entry points for people and CI. `make` lists them.
.DEFAULT_GOAL := help

# Builds do not contain the folder's path, so that all checkouts share Go's cache.
FLAGS = -buildvcs=false -trimpath

# Builds a program of scripts, which then replaces the shell: unlike `go run`, that passes on signals and exit statuses. The program is
# renamed into place, because another `make` may be running the old one. Coverage flags are only for the functions.
build = mkdir -p .local/bin && GOFLAGS='$(FLAGS)' go build -o .local/bin/$(1).$$$$ ./scripts/$(1) && mv -f .local/bin/$(1).$$$$ .local/bin/$(1)
PLATFORM = $(if $(PLATFORM_IS_BUILT),,$(call build,platform) &&) exec .local/bin/platform

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf '  %-10s %s\n' "$$name" "$$text"; done

.PHONY: up
up: ## start Postgres, PostgREST, Blobs and warm functions in the background; stops what runs (KV_LOCAL_PORT_BASE=20000 moves every port)
	@$(PLATFORM) up

.PHONY: down
down: ## stop the platform; data stays
	@$(PLATFORM) down

.PHONY: reset
reset: ## stop the platform and remove all local data
	@$(PLATFORM) reset

.PHONY: dev
dev: ## run netlify dev on the same database, at http://localhost:8888, until Ctrl-C
	@$(PLATFORM) dev

# These tools are pinned here and not in go.mod, since the functions need none of their hundred modules. They are built once.
ACTIONLINT = actionlint@v1.7.12
GOSEC = gosec@v2.30.0
GOVULNCHECK = govulncheck@v1.9.0
TOOLS = $(CURDIR)/.local/tools

$(TOOLS)/$(ACTIONLINT):
	@mkdir -p $(TOOLS) && GOFLAGS='$(FLAGS)' GOBIN=$(TOOLS) go install github.com/rhysd/actionlint/cmd/$(ACTIONLINT) && mv -f $(TOOLS)/actionlint $@

.PHONY: check
check: $(TOOLS)/$(ACTIONLINT) ## check formatting, vet, staticcheck, go.mod and the workflows (actionlint)
	@unformatted=$$(gofmt -l functions pkg scripts tests); test -z "$$unformatted" || { echo "gofmt would change:"; echo "$$unformatted"; exit 1; }
	@go vet ./...
	@go tool staticcheck ./...
	@go mod tidy -diff
	@$(TOOLS)/$(ACTIONLINT)

GENERATED = @go test -count=1 -run Documentation ./pkg/config $(1) && $(PLATFORM) run --name generate --functions=false -- \
	go test -count=1 -run SchemaFile ./tests/schema $(1)

.PHONY: generate
generate: ## regenerate the tables of variables in README.md and .env.example, and supabase/schema.sql
	$(call GENERATED,-update)

.PHONY: verify
verify: ## fail if a generated file is outdated (make generate)
	$(call GENERATED)

$(TOOLS)/$(GOSEC):
	@mkdir -p $(TOOLS) && GOFLAGS='$(FLAGS)' GOBIN=$(TOOLS) go install github.com/securego/gosec/v2/cmd/$(GOSEC) && mv -f $(TOOLS)/gosec $@

$(TOOLS)/$(GOVULNCHECK):
	@mkdir -p $(TOOLS) && GOFLAGS='$(FLAGS)' GOBIN=$(TOOLS) go install golang.org/x/vuln/cmd/$(GOVULNCHECK) && mv -f $(TOOLS)/govulncheck $@

# These programs, and the package behind one of them, run on the user's own machine. They read files named by the user (G122, G304, G703),
# call addresses named by the environment (G704), start programs (G204), create files that others may read unless they hold a secret
# (G301, G302, G306), ignore errors of Close (G104), convert ports and process ids (G115) and use random numbers (G404).
GOSEC_SCRIPTS = (scripts|tests|pkg/migrate)/.*:G104,G115,G122,G204,G301,G302,G304,G306,G404,G703,G704

# GOTOOLCHAIN=auto scans what Netlify builds: with the toolchain that go.mod names, or a newer one.
VULNCHECK = GOTOOLCHAIN=auto $(TOOLS)/$(GOVULNCHECK)
VULNDB = $(CURDIR)/.local/vulndb

.PHONY: lint
lint: check $(TOOLS)/$(GOSEC) $(TOOLS)/$(GOVULNCHECK) ## check, and scan the code and its dependencies for security problems (gosec, govulncheck)
	@$(TOOLS)/$(GOSEC) -quiet -nosec-require-rules -nosec-require-justification -exclude-rules='$(GOSEC_SCRIPTS)' ./...
	@echo 'gosec found nothing'
	@$(VULNCHECK) ./... || { status=$$?; test $$status -ne 3 || exit 3; \
		echo 'Its database, vuln.go.dev, cannot be reached: building it from the module golang.org/x/vulndb.'; \
		$(MAKE) --no-print-directory $(VULNDB) && $(VULNCHECK) -db file://$(VULNDB) ./...; }

# The database of vuln.go.dev, from the module proxy. It is built anew each time, since it grows.
.PHONY: $(VULNDB)
$(VULNDB):
	@rm -rf $@ && osv=$$(go mod download -json golang.org/x/vulndb@latest | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",$$/\1/p')/data/osv && \
		GOTOOLCHAIN=auto go run golang.org/x/vulndb/cmd/indexdb@latest -vulns "$$osv" -out $@

# --- tests: stages that run in parallel, each on its own platform ---

# The platform's program is built once for all stages.
STAGES = rm -rf $(COVERAGE) && $(call build,platform) && $(call build,stages) && export PLATFORM_IS_BUILT=1 && exec .local/bin/stages

.PHONY: test
test: ## test everything that a change can break, from scratch, in minutes (one stage: make test-e2e, test-unit, …)
	@$(STAGES) e2e,functions,unit,schema,scripts,check coverage

.PHONY: test-long
test-long: export LONG = true
test-long: export CACHE_TEST_ROUNDS ?= 20000
test-long: export CACHE_TEST_SECONDS ?= 60
test-long: export EXPIRY_TEST_SECONDS ?= 60
test-long: export NAMESPACE_TEST_REQUESTS ?= 10000
test-long: export KVTEST_LOOPS ?= 100
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
test-long: export MIGRATE_TEST_MEMORY ?= 1000000
test-long: export MIRROR_TEST_KEYS ?= 1500
test-long: export MIRROR_TEST_STEPS ?= 60
test-long: export FUZZTIME ?= 1m
test-long: ## test everything completely: every mode, thousands of random rounds, a million entries, minutes of fuzzing (hours)
	@$(STAGES) -side-by-side 2 e2e,functions,unit,schema,scripts,check,road-build,road-database,road-far coverage,fuzz

test-%: export GOFLAGS = $(FLAGS)

# Go's default of 10 minutes per package is too short for slow machines. The stage check vets.
GO_TEST = go test -vet=off -count=1 -timeout $(if $(LONG),3h,30m)

COVERAGE = $(CURDIR)/.local/coverage

TEST_PLATFORM = $(PLATFORM) run --unsynced

# Functions built with COVERED count covered statements. UNCOVERED keeps the command on their platform from inheriting that.
COVERED = export GOFLAGS='$(FLAGS) -cover -covermode=atomic' GOCOVERDIR=$(COVERAGE)/functions;
UNCOVERED = env -u GOCOVERDIR GOFLAGS='$(FLAGS)'

.PHONY: test-check
test-check: check

.PHONY: test-unit
test-unit:
	@mkdir -p $(COVERAGE)
	@$(TEST_PLATFORM) --name test-unit --functions=false -- $(MAKE) --no-print-directory --keep-going on-units-with-race on-units

# The packages whose goroutines share memory have the race detector, in make test-long all. Each package runs once. The goroutines of
# pkg/blobs run under it in the tests of pkg/mirror.
RACE = $(if $(LONG),-race)
COVER_TEST = $(GO_TEST) -coverpkg=./pkg/... -coverprofile=$(COVERAGE)/$(1).txt
WITH_RACE = ./pkg/kv ./pkg/mirror

.PHONY: on-units-with-race
on-units-with-race:
	@$(call COVER_TEST,race) -race $(if $(LONG),./pkg/...,$(WITH_RACE))

.PHONY: on-units
on-units:
	@$(if $(LONG),true,$(call COVER_TEST,unit) $$(go list ./pkg/... | grep -vxF "$$(go list $(WITH_RACE))"))

# Without the race detector: only SQL statements race here.
.PHONY: test-schema
test-schema:
	@$(TEST_PLATFORM) --name test-schema --functions=false -- $(GO_TEST) ./tests/schema

# Programs that start their own platform or need none.
.PHONY: test-scripts
test-scripts:
	@$(GO_TEST) $(RACE) ./scripts/coverage/... ./scripts/platform/... ./scripts/stages/...

# Programs that call functions, and a few end-to-end tests through netlify dev. The functions are those of test-e2e, built once.
.PHONY: test-functions
test-functions:
	@mkdir -p $(COVERAGE)/functions
	@$(COVERED) $(TEST_PLATFORM) --name test-functions --dev -- $(UNCOVERED) $(MAKE) --no-print-directory on-functions

.PHONY: on-functions
on-functions:
	@$(GO_TEST) ./tests/docs ./tests/load ./tests/faults ./tests/buildbot
	@$(GO_TEST) ./tests/clients
	@$(GO_TEST) $(RACE) ./scripts/bench/... ./scripts/internal/... ./scripts/kv/...
	@$(GO_TEST) ./tests/preview
	@KV_BASE_URL=$$KV_DEV_URL KV_HOST_URL= E2E_SMOKE=1 $(GO_TEST) ./tests/e2e ./tests/sessions

# Every test with the default settings, and in each other mode the tests that depend on its settings. LONG=true runs every test in every
# mode.
ONLY = $(if $(LONG),,E2E_ONLY=$(1))
.PHONY: test-e2e
test-e2e:
	@mkdir -p $(COVERAGE)/functions
	@go test -c -vet=off -o .local/bin/e2e.test ./tests/e2e
	@$(COVERED) $(TEST_PLATFORM) --name test-e2e \
		--mode '$(call ONLY,token) KV_API_TOKEN=first,second KV_READ_TOKEN=reader' \
		--mode '$(call ONLY,cache) KV_CACHE_MAX_STALE=0 KV_WARM_KEYS=e2e/warm/*' \
		--mode '$(call ONLY,store) KV_CACHE=off KV_MIRROR_WRITES=true KV_COMPARE_READS=0.3' \
		--mode '$(call ONLY,store) USE_SUPABASE_KV=false' \
		--mode '$(call ONLY,store) USE_SUPABASE_KV=false KV_MIRROR_WRITES=true KV_COMPARE_READS=0.3' \
		-- $(UNCOVERED) sh -c 'cd tests/e2e && exec ../../.local/bin/e2e.test -test.timeout $(if $(LONG),3h,30m)'

# The coverage of the unit tests and of the functions under the end-to-end tests.
.PHONY: test-coverage
test-coverage:
	@go tool covdata textfmt -i=$(COVERAGE)/functions -o=$(COVERAGE)/functions.txt
	@go run ./scripts/coverage -skip pkg/kv/kvtest -skip pkg/blobs/blobstest -skip pkg/migrate/migratetest -skip pkg/migrate/sources/sourcetest $(COVERAGE)/functions.txt $(wildcard $(COVERAGE)/race.txt $(COVERAGE)/unit.txt)

.PHONY: test-fuzz
test-fuzz:
	@$(TEST_PLATFORM) --name test-fuzz --functions=false -- $(MAKE) --no-print-directory fuzz

.PHONY: road
road: ## test with the vendors' tools what hosted services would do: builds, the Supabase CLI, Postgres 15, a latency of 150 ms
	@$(STAGES) road-build,road-database,road-far

# Netlify's own build, from empty caches with an older Go, and of every kind of site that kv add supports.
.PHONY: test-road-build
test-road-build:
	@LONG=true $(GO_TEST) ./tests/buildbot ./scripts/kv/internal/add

.PHONY: test-road-database
test-road-database:
	@$(TEST_PLATFORM) --name road-database --functions=false -- env ROAD=1 $(GO_TEST) -run 'SupabaseCLI|ForeignTable' ./scripts/platform
	@$(TEST_PLATFORM) --name road-database --functions=false --postgres 15 -- $(GO_TEST) ./tests/schema

# The end-to-end tests against a site with a high latency.
.PHONY: test-road-far
test-road-far:
	@$(TEST_PLATFORM) --name road-far -- env LONG=true PREVIEW_FAR=1 $(GO_TEST) -run FarAway ./tests/preview

# Each package is built once for all of its targets. A failing input is saved in the package's testdata/fuzz, where `go test` uses it from
# then on. Go sometimes reports the end of the time as a failure without an input, which does not count.
.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (3s); with SUPABASE_URL set, also those that need a database
	@mkdir -p .local/fuzz; log=$(CURDIR)/.local/fuzz/log; \
	for dir in $$(grep -rl '^func Fuzz' --include='*_test.go' $(or $(PACKAGES),functions pkg scripts tests) | xargs -n 1 dirname | sort -u); do \
		binary=$(CURDIR)/.local/fuzz/$$(echo $$dir | tr / -).test && go test -c -fuzz=. -o $$binary ./$$dir && \
		( cd $$dir && for target in $$($$binary -test.list '^Fuzz'); do \
			$$binary -test.run '^$$' -test.fuzz "^$$target\$$" -test.fuzztime $(or $(FUZZTIME),3s) -test.fuzzminimizetime 500ms \
				-test.fuzzcachedir "$$(go env GOCACHE)/fuzz/kv/$$dir" >$$log 2>&1 || \
				{ grep -q '^ *context deadline exceeded$$' $$log && ! grep -Eq 'Failing input|panic:|\.go:[0-9]' $$log; } || { cat $$log; exit 1; }; \
			echo "$$dir $$target $$(grep execs: $$log | tail -n 1)"; done ) || exit 1; done

# The tests' program replaces the shell, so that it gets signals and can remove its entries.
.PHONY: e2e
e2e: ## run the end-to-end tests against KV_BASE_URL, or against the platform of `make up` (ARGS='-test.run Smoke')
	@if [ -z "$$KV_BASE_URL" ] && [ -f .local/env ]; then set -a; . ./.local/env; set +a; fi; mkdir -p .local/bin && \
		GOFLAGS='$(FLAGS)' go test -c -o .local/bin/e2e.$$$$ ./tests/e2e && mv -f .local/bin/e2e.$$$$ .local/bin/e2e && cd tests/e2e && \
		exec ../../.local/bin/e2e -test.v -test.timeout 15m $(ARGS)

.PHONY: scale
scale: ## check the plan of every read at ENTRIES (1,000,000), and how its cost grows from 10,000: 15 minutes, on a new platform
	@$(PLATFORM) run -- env KV_SCHEMA_ENTRIES=$(or $(ENTRIES),1000000) KV_SCHEMA_GROWTH=1 \
		go test -count=1 -timeout 60m -v -run 'Plans|CostsDoNotGrow' ./tests/schema

.PHONY: bench
bench: ## measure the functions on a new platform, into .local/bench.json (SCALE=full: also with a million entries; ARGS=--help)
	@$(PLATFORM) run -- go run ./scripts/bench --out $(CURDIR)/.local/bench.json \
		$(if $(filter full,$(SCALE)),--entries 10000$(comma)100000$(comma)1000000) $(ARGS)

comma = ,

.PHONY: benchstat
benchstat: ## measure single steps of the Go code, into .local/benchstat.txt; OLD=file compares with an older result
	@mkdir -p .local && go test -run '^$$' -bench . -benchtime 0.2s -count 10 ./pkg/netlify ./pkg/kv >.local/benchstat.txt || { cat .local/benchstat.txt; exit 1; }
	@go tool benchstat $(OLD) .local/benchstat.txt

.PHONY: load
load: ## simulate 1,000 users for a minute on a new platform, into .local/load.json (ARGS=--help)
	@$(PLATFORM) run -- go run ./tests/load --out $(CURDIR)/.local/load.json $(ARGS)

.PHONY: faults
faults: ## break a new platform in many ways under load, and check what clients saw, into .local/faults.json (MIRROR=true: with mirrored writes; ARGS=--help)
	@$(PLATFORM) run --instances 4 $(if $(filter true,$(MIRROR)),--env KV_MIRROR_WRITES=true) -- go run ./tests/faults --out $(CURDIR)/.local/faults.json $(ARGS)

.PHONY: migrate
migrate: ## migrate between Netlify Blobs and Supabase: make migrate ARGS='repair --primary supabase' (ARGS=--help)
	@if [ -z "$$SUPABASE_URL" ] && [ -f .local/env ]; then set -a; . ./.local/env; set +a; fi; $(call build,kv) && exec .local/bin/kv migrate $(ARGS)

# Each mode is a deploy of the runbook; the script takes the next step in each.
.PHONY: rehearse
rehearse: ## the runbook of a migration, from JavaScript functions to Supabase alone and back, on a platform of its own: some minutes
	@$(call build,kv) && export REHEARSAL=$$(mktemp -d) && trap 'rm -rf "$$REHEARSAL"' EXIT && \
		$(subst exec ,,$(PLATFORM)) run --name rehearse --env USE_SUPABASE_KV=false \
		--mode 'KV_MIRROR_WRITES=true' \
		--mode 'KV_MIRROR_WRITES=true KV_COMPARE_READS=1' \
		--mode 'USE_SUPABASE_KV=true KV_MIRROR_WRITES=true KV_COMPARE_READS=1' \
		--mode 'USE_SUPABASE_KV=false KV_MIRROR_WRITES=true' \
		--mode 'USE_SUPABASE_KV=true KV_MIRROR_WRITES=false' \
		--mode 'USE_SUPABASE_KV=true KV_MIRROR_WRITES=true' \
		--mode 'USE_SUPABASE_KV=false KV_MIRROR_WRITES=true' \
		-- scripts/rehearse/rehearse.sh

# One package after the other, so that neither measures the other's load.
.PHONY: migrate-scale
migrate-scale: ## plan, migrate and verify a million made-up entries, and ENTRIES (100,000) of Blobs, each in INDEXES (2) of 20 indexes; say how long it took and in what memory
	@$(PLATFORM) run -- env MIGRATE_TEST_ENTRIES=$(or $(ENTRIES),100000) MIGRATE_TEST_INDEXES=$(or $(INDEXES),2) MIGRATE_TEST_MEMORY=1000000 \
		go test -p 1 -count=1 -timeout 120m -v -run 'ManyEntries|MemoryDoesNotGrow' ./pkg/migrate ./scripts/internal/migration

.PHONY: export
export: ## export the results of a query to a file: make export ARGS='--prefix docs/ --out docs.csv' (ARGS=--help)
	@if [ -z "$$KV_BASE_URL" ] && [ -f .local/env ]; then set -a; . ./.local/env; set +a; fi; $(call build,kv) && exec .local/bin/kv export $(ARGS)

.PHONY: kv
kv: ## add the functions to a site, or check a site: make kv ARGS='add ../my-site' or ARGS='doctor --dir ../my-site' (ARGS=--help)
	@$(call build,kv) && exec .local/bin/kv $(ARGS)

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

# Warren's development commands; "make help" lists them. What needs root (machines, containers)
# asks sudo where make is not run as root.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

# The same commit and Go give the same binaries: the only date in them is the commit's, and its name is as long in each clone.
VERSION := $(shell git describe --tags --always --abbrev=12 --dirty --match 'v[0-9]*' 2>/dev/null || echo unknown)
COMMIT  := $(shell git rev-parse HEAD 2>/dev/null || echo unknown)
DATE    := $(shell git log -1 --format=%cI 2>/dev/null || echo unknown)

DAEMONS    := warren-manager warren-agent
PROGRAMS   := $(DAEMONS) warrenctl
MAX_BINARY := 26214400
IDENTITY   := github.com/cuemby/warren/internal/version
# grpc's tracing page brings in html/template, half a megabyte.
TAGS       := grpcnotrace
# These are large and their functions long next to a call: inlining there costs a megabyte and saves no time.
UNHURRIED  := github.com/containerd go.opentelemetry.io google.golang.org/grpc github.com/vishvananda github.com/alecthomas/kong \
               go.yaml.in/yaml github.com/google/nftables github.com/opencontainers github.com/sirupsen github.com/moby \
               cel.dev/cel-go/ext cel.dev/cel-go/parser cel.dev/cel-go/checker cel.dev/cel-go/cel cel.dev/cel-go/common/stdlib github.com/antlr4-go \
               net/rpc encoding/gob text/template html/template net/http/pprof runtime/pprof golang.org/x/text github.com/miekg/dns
GCFLAGS    := $(foreach tree,$(UNHURRIED),-gcflags='$(tree)/...=-l')
LDFLAGS    := -s -w -X $(IDENTITY).Version=$(VERSION) -X $(IDENTITY).Commit=$(COMMIT) -X $(IDENTITY).Date=$(DATE)
BUILD_FLAGS = -trimpath -buildvcs=false -tags '$(TAGS)' $(GCFLAGS) -ldflags '$(LDFLAGS)'
# Packages that are made where there is no git are of that time.
COMMIT_TIME = $(if $(filter unknown,$(DATE)),@0,$(DATE))

# Test binaries are compiled by whoever calls make and run as root.
SUDO      := $(if $(filter 0,$(shell id -u)),,sudo -E env "PATH=$$PATH")
TEST_EXEC := $(if $(SUDO),-exec 'sudo -E env "PATH=$(PATH)"')

# Where compatibility of the API is judged from: the main branch, as far as this clone knows it.
BASE = $(shell git rev-parse -q --verify origin/main 2>/dev/null || git rev-parse -q --verify main 2>/dev/null)

# Else every program with the race detector sleeps a second before it ends, in case others are about to report something.
PROMPT_RACE := GORACE=atexit_sleep_ms=10

RUN = .

##@ Everyday

.PHONY: help
help: ## Show this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@/ { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  %-18s %s\n", "make " $$1, $$2 }' $(MAKEFILE_LIST)
	@echo

.PHONY: setup
setup: ## Install what machines and containers need on this host (quick when it is there)
	@./test/setup.sh

.PHONY: build
build: ## Build bin/warren-manager, bin/warren-agent and bin/warrenctl
	@mkdir -p bin build
	@CGO_ENABLED=0 go build $(BUILD_FLAGS) -o bin/ $(PROGRAMS:%=./cmd/%)
	@for program in $(PROGRAMS); do \
		size=$$(stat -c %s bin/$$program); \
		printf 'bin/%-16s %5.1f MB\n' $$program "$$(awk "BEGIN { print $$size / 1048576 }")"; \
		if [ "$$size" -gt $(MAX_BINARY) ]; then echo "bin/$$program is larger than 25 MB" >&2; exit 1; fi; \
	done

ARCHES := amd64 arm64
HOST   := $(shell go env GOARCH)

.PHONY: packages
packages: build bin/nfpm ## Make .deb and .rpm packages for amd64 and arm64 in dist/ (ARCHES="amd64")
	@rm -rf dist/*.deb dist/*.rpm
	@$(foreach arch,$(ARCHES),$(call build-packages,$(arch),dist);)
	@ls -sh1 dist/*.deb dist/*.rpm

.PHONY: apt-repo
apt-repo: ## Make a signed apt repository of dist/ in dist/apt (KEY=id of your gpg key)
	@./packaging/apt-repo.sh dist dist/apt $(KEY)

# What tests and the demo install: of the host's architecture alone.
.PHONY: host-packages
host-packages: build bin/nfpm
	@$(call build-packages,$(HOST),build/packages)
	@./packaging/apt-repo.sh build/packages build/apt >/dev/null 2>&1

# And, to upgrade to, the same as a later release, which knows one more format of what daemons keep and has a line more in
# their configuration files.
FORMATS := github.com/cuemby/warren/internal/dataformat

.PHONY: test-packages
test-packages: host-packages
	@mkdir -p build/next
	@CGO_ENABLED=0 go build $(BUILD_FLAGS) -ldflags '$(LDFLAGS) -X $(IDENTITY).Version=v999.0.0 -X $(FORMATS).manager=2 -X $(FORMATS).agent=2' \
		-o build/next/ $(PROGRAMS:%=./cmd/%)
	@rm -rf build/next/documents && cp -r build/documents build/next/documents
	@for daemon in manager agent; do echo '# The later release says more.' >>build/next/documents/$$daemon.yaml; done
	@NFPM=bin/nfpm VERSION=v999.0.0 COMMIT_TIME='$(COMMIT_TIME)' ./packaging/build.sh $(HOST) build/next build/next/documents build/next
	@cp build/packages/*.deb build/next
	@./packaging/apt-repo.sh build/next build/apt-next >/dev/null 2>&1

.PHONY: packages-lint
packages-lint: setup test-packages ## Have lintian, rpmlint and systemd-analyze judge packages and units, and make them again, to the byte
	@./packaging/lint.sh build/packages
	@$(call rebuild,host-packages,build/packages)

.PHONY: dist-lint
dist-lint: setup ## Have the packages in dist/, for all architectures, judged likewise
	@./packaging/lint.sh dist
	@$(call rebuild,packages,dist)

.PHONY: demo
demo: setup host-packages ## Show a cluster of three machines at work (KEEP=1 leaves it up)
	@go build -buildvcs=false -o build/demo ./test/demo
	@$(SUDO) ./build/demo $(if $(KEEP),-keep)

.PHONY: picture
picture: setup host-packages ## Draw docs/demo.svg, the picture in the README, from a run of the demo
	@go build -buildvcs=false -o build/demo ./test/demo
	@$(SUDO) ./build/demo -picture docs/demo.svg

.PHONY: demo-rm
demo-rm: ## Remove the cluster that "make demo KEEP=1" left up
	@go build -buildvcs=false -o build/demo ./test/demo
	@$(SUDO) ./build/demo -remove

##@ Checks

.PHONY: test
test: setup test-packages packages-lint bin/gotestsum ## Run all tests, with the race detector, as root
	@$(as-root)
	@$(PROMPT_RACE) bin/gotestsum --format pkgname-and-test-fails --format-hide-empty-pkg -- -race -timeout 30m $(TEST_EXEC) ./...
	@echo "thousands of simulated clusters, without the race detector, which makes them ten times as slow"
	@CGO_ENABLED=0 go test -trimpath -buildvcs=false -tags '$(TAGS)' $(GCFLAGS) -count 1 ./internal/manager/simulation -run SmallWorlds

.PHONY: e2e
e2e: setup build bin/gotestsum ## Run the end-to-end scripts whose name matches RUN=regexp
	@$(as-root)
	@bin/gotestsum --format testname -- -count 1 -timeout 20m $(TEST_EXEC) ./test/e2e -run 'TestScripts/$(RUN)'

.PHONY: test-kernel
test-kernel: setup host-packages bin/gotestsum ## Run what needs a kernel of its own (cgroup v2, WireGuard) in QEMU; RUN=regexp
	@./test/setup.sh --kernel
	@go build -buildvcs=false -o build/test-kernel ./test/kernel
	@bin/gotestsum --format testname --raw-command -- go tool test2json -t -p test/kernel \
		build/test-kernel -run '$(RUN)' -image "$$(./test/kernel/diskimage.sh --path)"

.PHONY: bench
bench: setup build ## Measure against the budgets (RUN=regexp, LOAD=60s, SWARM=1 beside Docker Swarm); also writes build/bench.json
	@go build -buildvcs=false -o build/bench ./test/bench
	@$(if $(SWARM),$(SUDO) ./test/bench/swarmroot.sh)
	@$(SUDO) ./build/bench -run '$(RUN)' -json build/bench.json $(if $(LOAD),-load $(LOAD)) $(if $(SWARM),-swarm "$$(./test/bench/swarmroot.sh --path)")

.PHONY: lint
lint: bin/buf bin/golangci-lint ## Check format, style, the API's rules and its compatibility, generated code
	@echo "gofmt";           files=$$(gofmt -l $(GO_DIRS)); if [ -n "$$files" ]; then echo "not formatted, run gofmt -w:" $$files >&2; exit 1; fi
	@echo "go vet";          go vet ./...
	@echo "golangci-lint";   bin/golangci-lint run
	@echo "buf";             bin/buf lint; bin/buf format --diff --exit-code --path proto/warren
	@echo "buf breaking";    ./tools/breaking.sh '$(BASE)'
	@echo "generated code";  ./tools/stale.sh
	@# With a tag of its own: what a link has said is said again by each later build of the same.
	@echo "unused methods";  found=$$(CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags '$(TAGS) dumpdep' $(GCFLAGS) -ldflags '-dumpdep' -o /dev/null $(DAEMONS:%=./cmd/%) 2>&1 | awk '/^[^ ]+( <UsedInIface>)? <ReflectMethod> ->/ && $$1 !~ /^reflect\./ { print $$1 }' | sort -u); \
		if [ -n "$$found" ]; then echo "methods are looked up by name, so that the linker keeps all of them (docs/decisions/0015-daemons-flags.md), by" $$found >&2; exit 1; fi

##@ Code

.PHONY: generate
generate: bin/buf ## Generate Go code from proto/, and docs/reference
	@bin/buf format -w --path proto/warren
	@bin/buf generate
	@bin/buf generate --template buf.gen.reference.yaml
	@go test -p 1 $(PROGRAMS:%=./cmd/%) -count=1 -run '^TestTheReferenceTells' -update >/dev/null

.PHONY: tools
tools: bin/buf bin/golangci-lint bin/gotestsum bin/nfpm ## Build the tools pinned in tools/go.mod (minutes, once)

.PHONY: clean
clean: ## Remove what was built in this checkout
	@rm -rf bin build dist

GO_DIRS = $(wildcard cmd internal packaging proto systemd test)

# The programs for another architecture, what they say of themselves (which is the same on all), and packages of both:
# architecture, folder.
define build-packages
	$(if $(filter $(HOST),$(1)),ln -sfn ../bin build/bin-$(1),mkdir -p build/bin-$(1) && CGO_ENABLED=0 GOARCH=$(1) go build $(BUILD_FLAGS) -o build/bin-$(1)/ $(PROGRAMS:%=./cmd/%)); \
	for program in $(PROGRAMS); do CGO_ENABLED=0 go run -trimpath -buildvcs=false -tags '$(TAGS) documents' $(GCFLAGS) ./cmd/$$program build/documents; done; \
	NFPM=bin/nfpm VERSION='$(VERSION)' COMMIT_TIME='$(COMMIT_TIME)' ./packaging/build.sh $(1) build/bin-$(1) build/documents $(2)
endef

# Packages once more, from a copy: the target that has made them, folder.
define rebuild
VERSION='$(VERSION)' COMMIT='$(COMMIT)' DATE='$(DATE)' ./packaging/rebuild.sh $(1) $(2)
endef

define as-root
if [ -n '$(SUDO)' ]; then echo "not root: the tests' programs are run with sudo, as they make machines and containers"; fi
endef

bin/buf:           package := github.com/bufbuild/buf/cmd/buf
bin/golangci-lint: package := github.com/golangci/golangci-lint/v2/cmd/golangci-lint
bin/gotestsum:     package := gotest.tools/gotestsum
bin/nfpm:          package := github.com/goreleaser/nfpm/v2/cmd/nfpm
bin/buf bin/golangci-lint bin/gotestsum bin/nfpm: tools/go.mod tools/go.sum
	@echo "building $@ (once)"
	@go build -C tools -buildvcs=false -o ../$@ $(package)
	@touch $@

# husk is built, tested and measured by these targets; CI calls nothing else.

# Any Go from 1.21 on fetches the version that go.mod names. Some distributions
# switch that off in their go.env, which the environment overrides.
export GOTOOLCHAIN := auto
export PATH := $(PATH):/usr/local/go/bin
# Version control stamps would differ between a clone and a tarball of it.
export GOFLAGS += -buildvcs=false

GO      ?= go
CC      ?= cc
PREFIX  ?= /usr/local
VERSION ?= 0.1.0-dev
COMMIT  ?= $(shell git describe --always --dirty --abbrev=12 2>/dev/null || echo unknown)
BIN     := $(CURDIR)/.cache/bin
HELPER  := cmd/husk/seccomp-compiler
LINKER  := cmd/husk/network-helper
IMAGES  := cmd/husk/image-helper
X       := github.com/huskrun/husk/cmd/husk

# Make before 4.3 takes a bare one for a comment.
HASH := \#
# Looked up when used: what both need, make setup installs.
LIBSECCOMP = $(shell printf '$(HASH)include <seccomp.h>\nSCMP_VER_MAJOR.SCMP_VER_MINOR.SCMP_VER_MICRO\n' | $(CC) -E -P - 2>/dev/null | tail -n 1 | tr -d ' ')
LDFLAGS    = -s -w -X main.release=$(VERSION) -X main.commit=$(COMMIT) -X main.libseccomp=$$(./$(HELPER) version)

ifdef PIE
# A position-independent static program needs the C linker.
BUILD := CGO_ENABLED=1 $(GO) build -buildmode=pie -tags netgo,osusergo
LDPIE := -linkmode external -extldflags '-static-pie'
else
BUILD := CGO_ENABLED=0 $(GO) build -buildmode=exe
endif

.PHONY: help
help: ## list the targets (what bare make does)
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build ./husk: one static program (PIE=1: position-independent)
	@.ci/setup.sh build
	@$(MAKE) --no-print-directory husk

# The go command knows best what is up to date.
.PHONY: husk
husk: $(HELPER) $(LINKER) $(IMAGES)
	$(BUILD) -trimpath -ldflags "$(LDFLAGS) $(LDPIE)" -o $@ ./cmd/husk

# The seccomp compiler is a C program (libseccomp); it travels inside husk. Its
# build ID is a part of the filter cache's key, so it stays. The define makes the go
# command compile it anew when libseccomp changes, which it would not notice.
.PHONY: $(HELPER)
$(HELPER):
	CGO_ENABLED=1 CGO_CPPFLAGS=-DHUSK_LIBSECCOMP=$(LIBSECCOMP) $(GO) build -trimpath -tags netgo,osusergo \
	  -ldflags '-s -w -linkmode external -extldflags "-static -Wl,--build-id=none"' -o $@ ./seccomp/compiler

# What changes network links is one too: package net, which it needs, would cost every
# start of husk.
.PHONY: $(LINKER)
$(LINKER):
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $@ ./namespaces/linker

# And so is what reads images.
.PHONY: $(IMAGES)
$(IMAGES):
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $@ ./runtime/unpacker

.PHONY: run
run: ## install what is missing, build, and run a container
	@.ci/setup.sh build run
	@$(MAKE) --no-print-directory -s husk
	@.ci/demo.sh

.PHONY: test
test: ## install what tests need and run all of them
	@.ci/setup.sh build run test vm
	@$(MAKE) --no-print-directory lint husk
	@.ci/test.sh all

.PHONY: check
check: ## the quick part of test: lint, unit and native integration
	@.ci/setup.sh build run test
	@$(MAKE) --no-print-directory lint husk
	@.ci/test.sh quick

.PHONY: test-conformance
test-conformance: ## run the official OCI validation suite, here and in a VM
	@.ci/setup.sh build run test vm
	@$(MAKE) --no-print-directory -s husk
	@.ci/test.sh conformance

.PHONY: test-vm
test-vm: ## run tests in a VM with cgroup v2 alone: KERNEL=sid, PKG=./cgroups, RUN=TestKernel
	@.ci/setup.sh build run vm
	@$(MAKE) --no-print-directory -s husk
	@.ci/test.sh vm

.PHONY: test-engines
test-engines: ## run Docker, containerd, CRI-O and Podman with husk below them: RUN=TestEngines/podman
	@.ci/setup.sh build run engines vm
	@$(MAKE) --no-print-directory -s husk
	@.ci/test.sh engines

.PHONY: docs
docs: $(HELPER) ## write the generated pages anew
	$(GO) test ./cgroups -run TestLimitsPage -update
	$(GO) test ./integration -run TestConformance -update

.PHONY: lint
lint: $(HELPER) $(LINKER) $(IMAGES) ## formatting, vet, staticcheck, scripts, dependency rules
	@.ci/lint.sh

.PHONY: fuzz
fuzz: ## fuzz every target for FUZZTIME (10s) each
	@.ci/fuzz.sh

.PHONY: bench
bench: ## compare husk with crun, runc and the floor, and its sandbox with others
	@.ci/setup.sh build run bench
	@$(MAKE) --no-print-directory -s husk
	@$(GO) run ./integration/bench

.PHONY: peers
peers: ## run other runtimes and sandboxes too, and write the README's comparisons anew
	@.ci/setup.sh build run bench
	@$(MAKE) --no-print-directory -s husk
	@sh integration/bench/peers.sh >/dev/null
	HUSK_UPDATE=1 HUSK=$(CURDIR)/husk unshare --mount $(GO) test -count=1 ./integration -run '^TestREADMEPeers'

.PHONY: repro
repro: ## build twice in different directories; the hashes must agree
	@.ci/setup.sh build
	@.ci/repro.sh '$(COMMIT)'

.PHONY: install
install: ## install husk, its manual page and completions below PREFIX (/usr/local)
	@test -x husk || { echo 'install: run make build first' >&2; exit 1; }
	install -D -m 0755 husk $(DESTDIR)$(PREFIX)/bin/husk
	install -d $(DESTDIR)$(PREFIX)/share/bash-completion/completions $(DESTDIR)$(PREFIX)/share/zsh/site-functions $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d
	install -d $(DESTDIR)$(PREFIX)/share/man/man8
	./husk man > $(DESTDIR)$(PREFIX)/share/man/man8/husk.8
	./husk completion bash > $(DESTDIR)$(PREFIX)/share/bash-completion/completions/husk
	./husk completion zsh > $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_husk
	./husk completion fish > $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/husk.fish

.PHONY: clean
clean: ## remove what was built
	rm -rf husk $(HELPER) $(LINKER) $(IMAGES) .cache

# The commands of developers. `make` alone lists them.
#
# Guests need root: so do `demo`, `test`, `bench` and `install`.

SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
ROUNDS ?= 1
.NOTPARALLEL:

.PHONY: help install uninstall install-client uninstall-client dist deps build programs demo check test test-host test-vm soak bench clean

help: ## Explain these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# PREFIX and DESTDIR have their usual meaning. With BIN, the programs come from that folder, without a build.
install: ## Build a release and install it on this Debian server; see docs/debian.md
	@[[ -n "$(BIN)" ]] || command -v cargo > /dev/null || { \
	  echo "make install: cargo is not in the PATH of $$(id -un). Build as the user who has Rust, with 'cargo build --release --locked'," >&2; \
	  echo "then install as root with: make install BIN=target/release" >&2; exit 1; }
	@[[ -n "$(BIN)" ]] || cargo build --release --locked --package innkeeperd --package innkeeper-webhook --package innkeeper-gateway --package innkeeper-pages --package innkeeper-dns --package innkeeper-cli
	@BIN="$(BIN)" initial-install/debian/install

uninstall: ## Remove what was installed; configuration and guests stay
	@initial-install/debian/install --uninstall

install-client: ## Install agent, preview and innkeeper on a laptop (Linux, macOS), without the daemon; PREFIX=$HOME/.local needs no root
	@[[ -n "$(BIN)" ]] || cargo build --release --locked --package innkeeper-cli
	@BIN="$(BIN)" PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" initial-install/client/install

uninstall-client: ## Remove what install-client installed; contexts stay
	@PREFIX="$(PREFIX)" DESTDIR="$(DESTDIR)" initial-install/client/install --uninstall

# Each target of STATIC needs its standard library (rustup target add) and a C compiler, in CC_<target> with underscores.
STATIC ?= x86_64-unknown-linux-musl
dist: ## Build a .deb of the server and static archives of the client into dist/, with checksums
	@cargo build --release --locked --package innkeeperd --package innkeeper-webhook --package innkeeper-gateway --package innkeeper-pages --package innkeeper-dns --package innkeeper-cli
	@for target in $(STATIC); do cargo build --release --locked --package innkeeper-cli --target "$$target"; done
	@STATIC="$(foreach target,$(STATIC),$${CARGO_TARGET_DIR:-target}/$(target)/release)" initial-install/dist dist

deps: ## Install missing packages for building and testing (Debian: with apt)
	@.ci/deps

build: deps ## Build all programs into target/debug
	@cargo build --workspace --locked

demo: deps programs ## See an agent and a preview come and go; KEEP=1 leaves them running to play with
	@BIN="$${CARGO_TARGET_DIR:-target}/debug" KEEP="$(KEEP)" tests/demo/run

# All programs, with the fake GitHub of the demo and the tests. One command, so that each crate is built once.
programs:
	@cargo build --workspace --features innkeeper-github/fake --locked

check: deps ## Format, lints, unit tests, documentation: for every change
	@.ci/verify check

test: deps ## Everything: check, all tests on real parts, the demo
	@.ci/verify test

test-host: deps programs ## The product on a Debian host with systemd; SCENARIO=name for one of tests/e2e
	@BIN="$${CARGO_TARGET_DIR:-target}/debug" tests/vm/run native $(SCENARIO)

test-vm: deps programs ## In virtual machines, what needs LVM, limits or a plug to pull; slow
	@BIN="$${CARGO_TARGET_DIR:-target}/debug" tests/vm/run vm $(SCENARIO)

soak: deps programs ## All scenarios in both tiers, a storm of requests, and an hour of pings, ROUNDS times: before a release; two hours for each round
	@for ((round = 1; round <= $(ROUNDS); round++)); do \
	  echo "== round $$round of $(ROUNDS)"; \
	  INNKEEPER_STORM_REQUESTS=10000 INNKEEPER_STORM_GUESTS=20 INNKEEPER_STORM_KILLS=5 \
	    cargo test --quiet --workspace --locked --test previews rest_storm -- --nocapture; \
	  cargo test --quiet --workspace --locked --test previews rest_pings -- --ignored --nocapture; \
	  for tier in native vm; do BIN="$${CARGO_TARGET_DIR:-target}/debug" tests/vm/run "$$tier"; done; \
	done

bench: deps ## Measure against bare systemd-nspawn; writes docs/benchmarks.md
	@tests/bench/run

clean: ## Remove the staged fixtures and the logs of tests, and nothing else
	@rm -rf "$${CARGO_TARGET_DIR:-target}/fixtures" "$${CARGO_TARGET_DIR:-target}/test-logs"

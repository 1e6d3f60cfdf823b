# `make help` says what there is.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/tidegate/target

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo test contract verify fix bench bench-failover bench-redis faults kills fuzz simulate cluster deps

# Only tests whose name holds this.
F ?=
# Only this connector's contract suite.
C ?=
# Only these rows of `make bench`, and how often each runs.
ROWS ?=
ROUNDS ?= 7
# Commands a second of `make bench-redis`, and keys of each type; empty for the default.
RATE ?=
KEYS ?=
# What `make faults` draws from, for how long, and which kinds (F5,F9); empty for the default. With a commit in FROM, the
# nodes run that version, and F26 rolls them to this one and back.
SEED ?=
MINUTES ?=
FAULTS ?=
FROM ?=
# Faults of `make kills`.
KILLS ?= 200
# How long `make fuzz` tries each kind of input.
FUZZ_SECONDS ?= 3600
# Worlds of `make simulate`; with SEED, the one of them to tell in full.
SEEDS ?= 10000
# Nodes of `make cluster`.
N ?= 3

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps:
	@./deploy/install-deps.sh

demo: deps ## Install, build and run the demo
	cargo build --workspace --bins
	./deploy/demo.sh

test: deps ## Run the tests; F=name for those whose name holds it
	cargo build --workspace --bins
	cargo test --workspace -- $(F)

contract: deps ## Run the contract suite of one connector, or of all; C=redis
	@names=$$(cargo test --workspace --lib -- --list | sed -n 's/: test$$//p' | grep -E '(sources|sinks)::$(if $(C),$(C)::,).*contract' || true); \
	[[ -n "$$names" ]] || { echo "no connector $(C) has a contract suite; C= is its folder's name" >&2; exit 1; }; \
	cargo test --workspace --lib -- --exact $$names

verify: ## Check format, lints, docs and house rules; writes nothing
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	cargo test --workspace --test tidy

fix: ## Mend format and simple lints; writes
	cargo clippy --workspace --all-targets --fix --allow-dirty --allow-staged
	cargo fmt --all

bench: deps ## Measure against bare parts, into deploy/bench/; ROWS=P3,P5 for some rows
	ROWS=$(ROWS) ROUNDS=$(ROUNDS) ./deploy/bench.sh ratios

bench-failover: ## Measure failover and moves; KILLS=50 FREEZES=10 MOVES=200, LOAD= changes a second
	./deploy/bench.sh failover

bench-redis: deps ## Everything happens to a Redis under RATE=100000 writes a second; KEYS=10000 of each type, SEED=1
	RATE=$(RATE) KEYS=$(KEYS) SEED=$(SEED) ./deploy/bench.sh redis

faults: deps ## Do to a cluster what can go wrong; SEED=7 MINUTES=20 FAULTS=F5,F9. Needs root
	SEED=$(SEED) MINUTES=$(MINUTES) FAULTS=$(FAULTS) FROM=$(FROM) ./deploy/faults.sh

kills: ## Kill and freeze what writes to PostgreSQL; KILLS=200 SEED=7
	KILLS=$(KILLS) SEED=$(SEED) cargo test --workspace --lib -- --nocapture postgres::tests::kills

fuzz: deps ## Read dumps and commands of Redis with mistakes in them; FUZZ_SECONDS=3600 SEED=7
	FUZZ_SECONDS=$(FUZZ_SECONDS) SEED=$(SEED) cargo test --workspace --lib -- --nocapture redis::tests::fuzz

simulate: ## Simulate placement, leases and moves under SEEDS=10000 seeds; SEED=n tells one in full
	SEEDS=$(SEEDS) SEED=$(SEED) cargo test --workspace --lib -- --nocapture simulation::tests::no_promise

cluster: ## Run N=3 nodes on loopback in ./.cluster; end them with deploy/cluster.sh down
	cargo build --workspace --bins
	./deploy/cluster.sh up $(N)

# The index of commands; CI calls `make test`. All targets install what they need on a Debian machine with cargo.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CARGO ?= cargo
TARGET := $(or $(CARGO_TARGET_DIR),target)
GUEST := $(TARGET)/guest/guest.qcow2
RESCUE := $(TARGET)/guest/rescue
VENV := $(TARGET)/venv
PACKAGES := gcc libc6-dev make qemu-system-x86 qemu-utils linux-image-cloud-amd64 busybox-static cpio xz-utils \
            syslinux syslinux-common mtools dosfstools xorriso e2fsprogs util-linux dropbear-bin python3-venv \
            protobuf-compiler libprotobuf-dev etcd-server postgresql mariadb-server \
            iproute2 nftables iputils-ping curl \
            pkg-config libvirt-dev libvirt-daemon libvirt-daemon-driver-qemu
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

.PHONY: help deps demo test lint unit contract test-openstack sim ablations bench bench-scheduler doc deny guest rescue-image secantus openapi

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

# Two rounds: what is installed may put off a package that was there in another version.
deps: ## install the Debian packages that builds and tests need
	@for round in 1 2; do missing=(); for p in $(PACKAGES); do \
	  dpkg-query -W -f='$${Status}' "$$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$$p"); done; \
	[ $${#missing[@]} -gt 0 ] || break; echo "installing: $${missing[*]}"; \
	  $(SUDO) apt-get update -qq; \
	  DEBIAN_FRONTEND=noninteractive $(SUDO) apt-get install -y -qq --no-install-recommends "$${missing[@]}" >/dev/null; done

guest: $(GUEST) ## the small bootable guest image
$(GUEST): $(wildcard tools/guest/*) | deps
	@mkdir -p $(dir $(GUEST))
	tools/guest/make-image.sh $(GUEST)

rescue-image: $(RESCUE)/vmlinuz ## the rescue system, as a disk and as kernel and initrd
$(RESCUE)/vmlinuz: $(wildcard tools/rescue/* tools/guest/*) | deps
	tools/rescue/make-rescue.sh $(RESCUE)

secantus: deps ## the server that the MongoDB store is tested with
	@tools/servers/secantus.sh $(TARGET)/venv-secantus

STORE ?=
demo: deps guest $(if $(filter postgres,$(STORE)),secantus) ## a real virtual machine from one command (KEEP=1 leaves the cloud up; STORE=etcd|postgres)
	$(CARGO) build --locked -p skyloom-cli -p skyloom-api-bin -p skyloom-engine-bin -p skyloom-agent-bin
	KEEP=$(KEEP) STORE=$(STORE) SECANTUS=$(TARGET)/venv-secantus/bin/secantusd-py \
	  tools/demo/demo.sh $(TARGET)/debug/skyloom $(GUEST)

test: deps lint guest unit contract test-openstack sim ablations ## everything, from a bare machine

lint: ## formatting and lints
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets --all-features -- -D warnings

unit: guest rescue-image secantus ## every test and conformance suite
	SKYLOOM_SECANTUS=$(abspath $(TARGET))/venv-secantus/bin/secantusd-py \
	  tools/test.sh $(TARGET)/tmp/unit.log $(CARGO) test --locked --workspace --all-features --no-fail-fast

contract: unit ## the OpenAPI document against the running API
	[ -x $(VENV)/bin/schemathesis ] || { python3 -m venv $(VENV) && $(VENV)/bin/pip install -q schemathesis==4.32.5; }
	tools/contract/run.sh $(TARGET)/debug/skyloom $(VENV)/bin/schemathesis

OPENSTACK := $(TARGET)/openstack/tempest
test-openstack: unit ## Tempest's identity tests and the openstack command against skyloom-api
	[ -x $(OPENSTACK)/bin/openstack ] || { python3 -m venv $(OPENSTACK) && \
	  $(OPENSTACK)/bin/pip install -q tempest==47.0.0 stestr==4.2.1 python-openstackclient==10.5.0; }
	tools/openstack/run.sh $(TARGET)/debug/skyloom-api $(OPENSTACK)

SEEDS ?= 20000
FROM ?= 0
SIM := $(TARGET)/sim/skyloom-sim
sim: deps ## the simulator (SEEDS=20000 schedules from seed FROM=0), after 200 whose traces are compared
	$(CARGO) build --locked --profile sim -p skyloom-sim --features ablation
	$(SIM) --seeds 200 --from $(FROM) --check-trace
	$(SIM) --seeds $(SEEDS) --from $(FROM)

ablations: deps ## each safety rule left out in turn: the simulator must notice (RULES=A,B for some of them)
	$(CARGO) build --locked --profile sim -p skyloom-sim --features ablation
	$(SIM) --ablations --seeds 20000 --rules "$(RULES)"

bench: deps ## figures, each beside a peer or a physical limit (docs/performance.md)
	tools/bench/run.sh

bench-scheduler: ## the scheduler's table, then a million random requests put to the index and to a scan
	$(CARGO) bench --locked -p skyloom-scheduler --bench table
	$(CARGO) bench --locked -p skyloom-scheduler --bench table -- --agree 1000000

doc: ## the reference
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --all-features --no-deps

openapi: ## regenerate docs/openapi.json
	$(CARGO) run --locked -q -p skyloom-api --example openapi > docs/openapi.json.part
	mv docs/openapi.json.part docs/openapi.json

deny: ## bans, licences, sources (needs cargo-deny)
	$(CARGO) deny --offline check bans licenses sources

# What people do with this repository. Each target installs what it needs; `make` lists them.
#
# Cargo's own variables hold, CARGO_TARGET_DIR for example.

TARGET := $(or $(CARGO_TARGET_DIR),target)

# Where insta notes each snapshot file that a test reads.
SNAPSHOTS := $(abspath $(TARGET))/snapshots.txt

.DEFAULT_GOAL := help
.PHONY: help build release run demo test bench lint clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## a release binary, to try things with
	cargo build --release --locked

release: ## the binary to deploy: one that was built by what another did under load
	deploy/release.sh

run: build ## the bridge alone: events come out on stdout, no cloud, a new store each time
	@rm -rf "$(TARGET)/run"
	$(info In another terminal, to see an event come out here:)
	$(info )
	$(info curl -s -d @config/notification.json http://127.0.0.1:9096/webhook/local)
	$(info )
	SCALEBRIDGE__STORE__SQLITE__PATH="$(TARGET)/run/scalebridge.db" \
		$(TARGET)/release/scalebridge serve --config config/scalebridge.yaml

demo: build ## an alert's whole way, Prometheus to capacity; KEEP=1 leaves it running
	deploy/tools.sh
	$(TARGET)/tools/venv/bin/python -B deploy/demo/demo.py $(if $(filter-out 0,$(KEEP)),--keep)

test: ## all tests, with real Prometheus, Alertmanager and a local AWS
	deploy/tools.sh
	cargo test --locked --doc
	@rm -f "$(SNAPSHOTS)"
	INSTA_SNAPSHOT_REFERENCES_FILE="$(SNAPSHOTS)" cargo test --locked --lib --bins --tests
	@.ci/unreferenced-snapshots "$(SNAPSHOTS)"

bench: release ## the whole bridge under load, measured beside its goals; ONLY=storm measures one part
	SCALEBRIDGE_BINARY="$(abspath $(TARGET))/deploy/scalebridge" \
		cargo bench --locked --bench harness -- $(if $(ONLY),--only $(ONLY))

lint: ## all checks that run no test: format, clippy, rustdoc, dependencies, scripts
	deploy/tools.sh lint
	cargo fmt --check
	"$(TARGET)/tools/bin/shellcheck" --severity=warning .ci/run .ci/unreferenced-snapshots deploy/*.sh
	"$(TARGET)/tools/bin/cargo-machete"
	"$(TARGET)/tools/bin/cargo-deny" --locked --all-features check --hide-inclusion-graph licenses bans sources
	cargo check --locked --lib --no-default-features
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --no-deps --document-private-items

clean: ## removes all that the above have made
	cargo clean

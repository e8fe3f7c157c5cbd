# Build, test and run targets; `make` lists them. Each target installs the tools that it needs.
#
# Cargo's environment variables apply, for example CARGO_TARGET_DIR.

TARGET := $(or $(CARGO_TARGET_DIR),target)

# The file to which insta writes the path of each snapshot that a test reads.
SNAPSHOTS := $(abspath $(TARGET))/snapshots.txt

# The bridge and the scaler: built together, so that their common dependencies are built once.
PACKAGES := --package scalebridge --package scalebridge-scaler

.DEFAULT_GOAL := help
.PHONY: help build scaler release run demo test soak soak-postgres fuzz bench lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## build a plain release binary, for trying things
	cargo build --release --locked

scaler: ## build the scaler, and pack it as a Lambda function: target/scaler.zip
	cargo build --release --locked --package scalebridge-scaler
	deploy/scaler/package.sh "$(TARGET)/release/scalebridge-scaler" "$(TARGET)/scaler.zip"

release: ## build the binary to deploy, with profile-guided optimization (PGO) and BOLT
	deploy/release.sh

run: build ## run the bridge without a cloud: events on stdout, an empty store each time
	@rm -rf "$(TARGET)/run"
	$(info In another terminal, send a notification to see an event here:)
	$(info )
	$(info curl -s -d @config/notification.json http://127.0.0.1:9096/webhook/local)
	$(info )
	SCALEBRIDGE__STORE__SQLITE__PATH="$(TARGET)/run/scalebridge.db" \
		$(TARGET)/release/scalebridge serve --config config/scalebridge.yaml

demo: ## build bridge and scaler, and run an alert end to end, Prometheus to capacity; KEEP=1 leaves it running
	deploy/tools.sh
	$(TARGET)/tools/venv/bin/python -B deploy/demo/demo.py $(if $(filter-out 0,$(KEEP)),--keep)

test: ## run all tests, with real Prometheus and Alertmanager and an AWS emulator
	deploy/tools.sh
	cargo test --locked --doc
	@rm -f "$(SNAPSHOTS)"
	INSTA_SNAPSHOT_REFERENCES_FILE="$(SNAPSHOTS)" cargo test --locked $(PACKAGES) --lib --bins --tests
	@.ci/unreferenced-snapshots "$(SNAPSHOTS)"

soak: $(if $(PAIR),,fuzz soak-postgres) ## fuzz, load PostgreSQL, and compare the engine with its reference model, each at most MINUTES; DEPTH=6 MINUTES=600 PAIR=revert_and_idle
	CARGO_PROFILE_TEST_OPT_LEVEL=2 SOAK_DEPTH="$(or $(DEPTH),4)" SOAK_MINUTES="$(or $(MINUTES),600)" \
		$(if $(PAIR),SOAK_PAIR="$(PAIR)") \
		cargo test --locked --lib -- reference::exhaustive::soak --ignored --nocapture

soak-postgres: ## deliver on PostgreSQL beside a transaction that stays open; DELIVERIES=200000 OPEN_MINUTES=2 takes less than 2,000,000 and 10
	deploy/tools.sh
	CARGO_PROFILE_TEST_OPT_LEVEL=2 SOAK_DELIVERIES="$(or $(DELIVERIES),2000000)" \
		SOAK_OPEN_MINUTES="$(or $(OPEN_MINUTES),10)" \
		cargo test --locked --lib -- store::tests::soak --ignored --nocapture

fuzz: ## fuzz what reads untrusted bytes, a tenth of MINUTES (600) for each target; ONLY=matcher fuzzes one
	SECONDS_EACH=$$(( $(or $(MINUTES),600) * 6 )) fuzz/run $(ONLY)

bench: release ## measure the whole bridge under load against its targets; ONLY=storm runs one part
	deploy/tools.sh
	SCALEBRIDGE_BINARY="$(abspath $(TARGET))/deploy/scalebridge" \
		cargo bench --locked --bench harness -- $(if $(ONLY),--only $(ONLY))

lint: ## run all checks except tests: format, clippy, rustdoc, dependencies, scripts
	deploy/tools.sh lint
	cargo fmt --check
	"$(TARGET)/tools/bin/shellcheck" --severity=warning .ci/run .ci/unreferenced-snapshots .ci/with-seed deploy/*.sh deploy/*/*.sh fuzz/run fuzz/rustc
	"$(TARGET)/tools/bin/cargo-machete"
	"$(TARGET)/tools/bin/cargo-deny" --locked --all-features check --hide-inclusion-graph licenses bans sources
	cargo check --locked --lib --no-default-features
	cargo clippy --locked $(PACKAGES) --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --locked $(PACKAGES) --no-deps
	RUSTDOCFLAGS="-D warnings" cargo doc --locked $(PACKAGES) --no-deps --document-private-items

clean: ## remove all build output
	cargo clean

#!/usr/bin/env bash
# Builds the binary to deploy, target/deploy/scalebridge, with profile-guided optimization (PGO) and BOLT:
#
#   1. build an instrumented binary, run the benchmark's load on it, merge the profile
#   2. build with that profile
#   3. instrument the result with llvm-bolt, run the load again, reorder functions and blocks by what ran
#
# docs/adr/0004-pgo-and-bolt.md has the figures.
#
#   LEARN="storm idle"   parts of the benchmark to run as the load, see benches/harness
#   PROFILE=release      cargo's profile; `dev` runs all steps without optimization
#
# `deploy/release.sh smoke` runs the same steps on a small program of its own, in a minute, and installs nothing in
# target/deploy. It checks that the tools are installed and work together; it does not test the bridge.
#
# Cargo's environment variables apply, also RUSTFLAGS and CFLAGS. A new profile is recorded only if the code changed.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
read -ra parts <<<"${LEARN:-storm coalesced large idle pending million}"
profile=${PROFILE:-release}
mkdir -p "${CARGO_TARGET_DIR:-target}/deploy"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
deploy="$target/deploy"
package=$PWD
program=scalebridge
host=$(rustc -vV | sed -n 's/^host: //p')

say() { echo "release: $*" >&2; }

case $profile in
  release) folder=release ;;
  dev) folder=debug ;;
  *) say "PROFILE is 'release' or 'dev', not '$profile'" && exit 2 ;;
esac

# make_smoke: a package of one file, with the release profile of the bridge.
make_smoke() {
  deploy="$target/deploy/smoke"
  package="$deploy/package"
  program=smoke
  parts=(smoke)
  rm -rf "$deploy"
  mkdir -p "$package/src"
  {
    printf '[package]\nname = "smoke"\nedition = "2024"\n\n[workspace]\n\n'
    awk '/^\[/ { wanted = $0 == "[profile.release]" } wanted' Cargo.toml
  } >"$package/Cargo.toml"
  cat >"$package/src/main.rs" <<'RUST'
fn main() {
    let words = (0..200_000_u64).map(|n| format!("{:x}", n.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    println!("{}", words.filter(|word| word.len() < 16).count());
}
RUST
  cargo generate-lockfile --quiet --offline --manifest-path "$package/Cargo.toml"
}

case ${1:-} in
  '') ;;
  smoke) make_smoke ;;
  *) say "the argument is 'smoke' or none, not '$1'" && exit 2 ;;
esac

# build STAGE FLAG...: builds the program in its own directory. With `--target`, cargo does not apply the flags to build
# scripts and macros, which would write profiles of their own.
build() {
  local flags stage=$1
  shift
  read -ra flags <<<"${RUSTFLAGS:-}"
  flags+=("$@")
  # Not RUSTFLAGS, since a path can contain a space. gcc must not split functions, since llvm-bolt does that.
  CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\037' && printf '%s' "${flags[*]}") CARGO_TARGET_DIR="$deploy/$stage" \
    CFLAGS="${CFLAGS:-} -fno-reorder-blocks-and-partition" \
    cargo build --locked --profile "$profile" --target "$host" --manifest-path "$package/Cargo.toml" --bin $program
}

built() { echo "$deploy/$1/$host/$folder/$program"; }

# A hash of the binary and the load.
name_of() { printf '%s' "${parts[*]}" | cat - "$1" | sha256sum | cut -c1-16; }

# run_load BINARY: runs the load on an instrumented binary, which writes its profile at exit.
run_load() {
  local part
  for part in "${parts[@]}"; do
    say "running the load: $part"
    if [ $program = smoke ]; then
      "$1" >"$deploy/output"
    else
      SCALEBRIDGE_BINARY="$1" cargo bench --locked --profile "$profile" --bench harness -- --only "$part" >&2
    fi
  done
}

# bolt ARGUMENT...: llvm-bolt, silent unless it fails. The real path, since it loads libraries relative to it.
bolt() {
  "$bolt" "$@" >"$deploy/bolt.log" 2>&1 || {
    tail -n 20 "$deploy/bolt.log" >&2
    say "llvm-bolt failed, see above and $deploy/bolt.log; $(built optimized) is the binary without this step"
    exit 1
  }
}

deploy/tools.sh llvm
bolt=$(readlink -f "$target/tools/bin/llvm-bolt")

say "building an instrumented binary"
raw="$deploy/raw"
build instrumented "-Cprofile-generate=$raw"
# Cargo rebuilds when the path of a profile changes, not when its content does, so the name has a hash.
merged="$deploy/$(name_of "$(built instrumented)").profdata"
if [ ! -e "$merged" ]; then
  rm -rf "$raw" "$deploy"/*.profdata
  run_load "$(built instrumented)"
  "$target/tools/bin/llvm-profdata" merge -o "$merged.new" "$raw"/*.profraw || {
    say "this llvm-profdata cannot read rustc's profiles: install a matching one with 'rustup component add llvm-tools'"
    exit 1
  }
  mv "$merged.new" "$merged"
fi

say "building with the profile"
# llvm-bolt needs the relocations to move code.
build optimized "-Cprofile-use=$merged" -Clink-arg=-Wl,--emit-relocs
order="$deploy/$(name_of "$(built optimized)").fdata"
if [ ! -e "$order" ]; then
  rm -rf "$raw" "$deploy"/*.fdata && mkdir "$raw"
  bolt "$(built optimized)" -o "$deploy/ordering" -instrument \
    --instrumentation-file="$raw/order" --instrumentation-file-append-pid
  run_load "$deploy/ordering"
  "$(dirname "$bolt")/merge-fdata" "$raw"/order.*.fdata >"$order.new"
  mv "$order.new" "$order"
fi

say "reordering the code"
bolt "$(built optimized)" -o "$deploy/$program.new" -data="$order" \
  -reorder-blocks=ext-tsp -reorder-functions=cdsort -split-functions -split-all-cold
mv "$deploy/$program.new" "$deploy/$program"
if [ $program = smoke ]; then
  "$deploy/smoke" | cmp - "$deploy/output" || { say "the output of the program has changed" && exit 1; }
fi
say "$deploy/$program"

#!/usr/bin/env bash
# Builds the binary to deploy, target/deploy/scalebridge: once to see under load which code is hot, once more by
# what was seen (profile-guided optimization), and then once more under load, to see in what order its parts run
# and to lay them out so (llvm-bolt). What it saves is in ARCHITECTURE, "Where the time goes".
#
#   LEARN="storm idle"   parts of the benchmark's harness that it learns from, see benches/harness
#   PROFILE=release      cargo's profile, or `dev`, which tries the way without its price
#
# Cargo's variables hold, RUSTFLAGS and CFLAGS too. Nothing is learnt again while the code stays as it is.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
read -ra parts <<<"${LEARN:-storm coalesced large idle pending million}"
profile=${PROFILE:-release}
mkdir -p "${CARGO_TARGET_DIR:-target}/deploy"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
deploy="$target/deploy"
host=$(rustc -vV | sed -n 's/^host: //p')

say() { echo "release: $*" >&2; }

case $profile in
  release) folder=release ;;
  dev) folder=debug ;;
  *) say "PROFILE is release or dev, and not '$profile'" && exit 2 ;;
esac

# build STAGE FLAG...: the bridge in a folder of its own. With a target that is named, cargo keeps the flags from
# build scripts and macros, which would leave profiles of themselves.
build() {
  local flags stage=$1
  shift
  read -ra flags <<<"${RUSTFLAGS:-}"
  flags+=("$@")
  # Not RUSTFLAGS itself: a path may have a space in it. gcc leaves functions in one piece: llvm-bolt cuts them.
  CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\037' && printf '%s' "${flags[*]}") CARGO_TARGET_DIR="$deploy/$stage" \
    CFLAGS="${CFLAGS:-} -fno-reorder-blocks-and-partition" \
    cargo build --locked --profile "$profile" --target "$host" --bin scalebridge
}

built() { echo "$deploy/$1/$host/$folder/scalebridge"; }

# A name that is another when the binary is, or what it learns from.
name_of() { printf '%s' "${parts[*]}" | cat - "$1" | sha256sum | cut -c1-16; }

# learn BINARY: puts one that counts under the load of the harness.
learn() {
  local part
  for part in "${parts[@]}"; do
    say "learning from $part"
    SCALEBRIDGE_BINARY="$1" cargo bench --locked --profile "$profile" --bench harness -- --only "$part" >&2
  done
}

# bolt ARGUMENT...: llvm-bolt, which says much, and only if it fails what matters. By its own place, since it
# looks for its libraries from there.
bolt() {
  "$bolt" "$@" >"$deploy/bolt.log" 2>&1 || {
    tail -n 20 "$deploy/bolt.log" >&2
    say "llvm-bolt failed, see above and $deploy/bolt.log; $(built learnt) is the binary without this step"
    exit 1
  }
}

deploy/tools.sh llvm
bolt=$(readlink -f "$target/tools/bin/llvm-bolt")

say "building a bridge that counts"
seen="$deploy/seen"
build counting "-Cprofile-generate=$seen"
# Cargo does not see that a profile has changed, but that it has another name.
learnt="$deploy/$(name_of "$(built counting)").profdata"
if [ ! -e "$learnt" ]; then
  rm -rf "$seen" "$deploy"/*.profdata
  learn "$(built counting)"
  "$target/tools/bin/llvm-profdata" merge -o "$learnt.new" "$seen"/*.profraw || {
    say "this llvm-profdata does not read what rustc writes: 'rustup component add llvm-tools' brings one that does"
    exit 1
  }
  mv "$learnt.new" "$learnt"
fi

say "building by what was learnt"
# llvm-bolt moves code, and has to know what points to it.
build learnt "-Cprofile-use=$learnt" -Clink-arg=-Wl,--emit-relocs
order="$deploy/$(name_of "$(built learnt)").fdata"
if [ ! -e "$order" ]; then
  rm -rf "$seen" "$deploy"/*.fdata && mkdir "$seen"
  bolt "$(built learnt)" -o "$deploy/ordering" -instrument \
    --instrumentation-file="$seen/order" --instrumentation-file-append-pid
  learn "$deploy/ordering"
  "$(dirname "$bolt")/merge-fdata" "$seen"/order.*.fdata >"$order.new"
  mv "$order.new" "$order"
fi

say "laying it out"
bolt "$(built learnt)" -o "$deploy/scalebridge.new" -data="$order" \
  -reorder-blocks=ext-tsp -reorder-functions=cdsort -split-functions -split-all-cold
mv "$deploy/scalebridge.new" "$deploy/scalebridge"
say "$deploy/scalebridge"

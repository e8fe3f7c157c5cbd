#!/usr/bin/env bash
# Builds the binary to deploy, target/deploy/scalebridge: once to see under load which code is hot, and once
# more by what was seen (profile-guided optimization). What it saves is in ARCHITECTURE, "Where the time goes".
#
#   LEARN="storm idle"   parts of the benchmark's harness that it learns from, see benches/harness
#   PROFILE=release      cargo's profile, or `dev`, which tries the way without its price
#
# Cargo's variables hold, RUSTFLAGS too. Nothing is learnt again while the code stays as it is.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
read -ra parts <<<"${LEARN:-storm coalesced large idle pending million}"
profile=${PROFILE:-release}
mkdir -p "${CARGO_TARGET_DIR:-target}/deploy"
target=$(cd "${CARGO_TARGET_DIR:-target}" && pwd)
seen="$target/deploy/seen"
host=$(rustc -vV | sed -n 's/^host: //p')

say() { echo "release: $*" >&2; }

case $profile in
  release) folder=release ;;
  dev) folder=debug ;;
  *) say "PROFILE is release or dev, and not '$profile'" && exit 2 ;;
esac

# build STAGE FLAG: the bridge in a folder of its own. With a target that is named, cargo keeps the flag from
# build scripts and macros, which would leave profiles of themselves.
build() {
  local flags
  read -ra flags <<<"${RUSTFLAGS:-}"
  flags+=("$2")
  # Not RUSTFLAGS itself: a path may have a space in it.
  CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\037' && printf '%s' "${flags[*]}") CARGO_TARGET_DIR="$target/deploy/$1" \
    cargo build --locked --profile "$profile" --target "$host" --bin scalebridge
}

deploy/tools.sh llvm
say "building a bridge that counts"
build counting "-Cprofile-generate=$seen"
counting="$target/deploy/counting/$host/$folder/scalebridge"

# Cargo does not see that a profile has changed, but that it has another name.
learnt="$target/deploy/$(printf '%s' "${parts[*]}" | cat - "$counting" | sha256sum | cut -c1-16).profdata"
if [ ! -e "$learnt" ]; then
  rm -rf "$seen" "$target"/deploy/*.profdata
  for part in "${parts[@]}"; do
    say "learning from $part"
    SCALEBRIDGE_BINARY="$counting" cargo bench --locked --profile "$profile" --bench harness -- --only "$part" >&2
  done
  "$target/tools/bin/llvm-profdata" merge -o "$learnt.new" "$seen"/*.profraw || {
    say "this llvm-profdata does not read what rustc writes: 'rustup component add llvm-tools' brings one that does"
    exit 1
  }
  mv "$learnt.new" "$learnt"
fi

say "building by what was learnt"
build learnt "-Cprofile-use=$learnt"
install "$target/deploy/learnt/$host/$folder/scalebridge" "$target/deploy/scalebridge"
say "$target/deploy/scalebridge"

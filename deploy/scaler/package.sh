#!/usr/bin/env bash
# Packs a binary of the scaler as a Lambda function: deploy/scaler/package.sh BINARY ZIP [CONFIG]
#
# The function's runtime is provided.al2023, its handler any name, its architecture that of the binary. `make scaler`
# builds the binary first. With CONFIG, the zip file contains it as config/scaler.yaml, which the function reads if it has
# no SCALEBRIDGE_SCALER_CONFIG: Lambda allows no more than 4 KB of environment variables.
set -euo pipefail

fail() { echo "package.sh: $*" >&2; exit 2; }

[ $# = 2 ] || [ $# = 3 ] || fail "two or three arguments: the binary, the zip file to write, and a configuration"
binary=$1 zip=$2 config=${3-}
[ -x "$binary" ] || fail "$binary is not a program: build it with make scaler"

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
strip -o "$directory/bootstrap" "$binary"
contents=("$directory/bootstrap")
if [ -n "$config" ]; then
  # Lambda does not run the function as the owner of the files.
  install -D -m 644 "$config" "$directory/config/scaler.yaml"
  chmod 755 "$directory/config"
  contents+=("$directory/config")
fi
# The same contents give the same file: the time is always the first one that a zip file can have.
find "$directory" -mindepth 1 -exec touch -d "1980-01-01T00:00:00Z" {} +
mkdir -p "$(dirname "$zip")"
rm -f "$zip"
# Python's module keeps that the file can be executed.
TZ=UTC python3 -m zipfile -c "$zip" "${contents[@]}"
echo "$zip: $(stat -c %s "$zip") bytes"

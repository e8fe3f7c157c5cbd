#!/usr/bin/env bash
# Packs a binary of the scaler as a Lambda function: deploy/scaler/package.sh BINARY ZIP
#
# The function's runtime is provided.al2023, its handler any name, its architecture that of the binary. `make scaler`
# builds the binary first.
set -euo pipefail

fail() { echo "package.sh: $*" >&2; exit 2; }

[ $# = 2 ] || fail "two arguments: the binary, and the zip file to write"
binary=$1 zip=$2
[ -x "$binary" ] || fail "$binary is not a program: build it with make scaler"

directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
strip -o "$directory/bootstrap" "$binary"
# The same binary gives the same file: its time is always the first one that a zip file can have.
touch -d "1980-01-01T00:00:00Z" "$directory/bootstrap"
mkdir -p "$(dirname "$zip")"
rm -f "$zip"
# Python's module keeps that the file can be executed.
TZ=UTC python3 -m zipfile -c "$zip" "$directory/bootstrap"
echo "$zip: $(stat -c %s "$zip") bytes"

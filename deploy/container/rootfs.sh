#!/usr/bin/env bash
# Makes the files of an image: deploy/container/rootfs.sh bridge|scaler BINARY DIRECTORY
#
# DIRECTORY/root gets everything that root owns: the program, the C library that it was linked with here, the CA
# certificates of this machine, a user, and the example configuration. DIRECTORY/data is /var/lib/scalebridge, which the
# user owns. There is no shell. Time zone data is not included: the program then prints times in UTC.
#
#   CA_CERTIFICATES=/etc/ssl/certs/ca-certificates.crt   the CAs that the program trusts
set -euo pipefail

fail() { echo "rootfs.sh: $*" >&2; exit 2; }

[ $# = 3 ] || fail "three arguments: bridge or scaler, the binary, and a directory that does not exist"
kind=$1 binary=$2 directory=$3
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
certificates=${CA_CERTIFICATES:-/etc/ssl/certs/ca-certificates.crt}

case $kind in
  bridge) program=scalebridge configuration=(scalebridge.yaml rules.yaml) ;;
  scaler) program=scalebridge-scaler configuration=(scaler.yaml) ;;
  *) fail "the first argument is 'bridge' or 'scaler', not '$kind'" ;;
esac
[ -x "$binary" ] || fail "$binary is not a program: build it with 'make build' or 'make scaler'"
[ ! -e "$directory" ] || fail "$directory exists"
[ -s "$certificates" ] || fail "no CA certificates in $certificates: install ca-certificates, or set CA_CERTIFICATES"

root=$directory/root
umask 022
mkdir -p "$root"/{etc/scalebridge,etc/ssl/certs,proc,sys,dev,tmp,usr/local/bin} "$directory/data"
chmod 1777 "$root/tmp"
strip -o "$root/usr/local/bin/$program" "$binary"

# The C library and what else the program is linked with, at the paths of this machine.
libraries=$(ldd "$binary") || fail "$binary is not linked dynamically"
if grep -F 'not found' <<<"$libraries" >&2; then fail "a library of $binary is missing"; fi
while read -r library; do
  install -D -m 755 "$(readlink -f "$library")" "$root$library"
done < <(grep -oE '/[^ ]+' <<<"$libraries")

install -m 644 "$certificates" "$root/etc/ssl/certs/ca-certificates.crt"
echo 'scalebridge:x:65532:65532::/var/lib/scalebridge:/sbin/nologin' >"$root/etc/passwd"
echo 'scalebridge:x:65532:' >"$root/etc/group"
# Names of hosts are looked up as everywhere else.
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
for file in "${configuration[@]}"; do
  install -m 644 "$repository/config/$file" "$root/etc/scalebridge/$file"
done

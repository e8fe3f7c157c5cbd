#!/usr/bin/env bash
# Builds an OCI image without Docker: deploy/container/image.sh bridge|scaler BINARY LAYOUT:TAG
#
# LAYOUT is a directory with an OCI image layout, which is created; `skopeo copy oci:LAYOUT:TAG docker://…` pushes it. It is
# the image of the Containerfile, without HEALTHCHECK, which OCI does not have. The same binary, libraries and certificates
# give the same digest.
#
#   SOURCE_DATE_EPOCH=0   the time in the image, in seconds since 1970
#   CA_CERTIFICATES=…     see rootfs.sh
#   UMOCI=umoci           the program; deploy/tools.sh installs target/tools/bin/umoci
set -euo pipefail

fail() { echo "image.sh: $*" >&2; exit 2; }

[ $# = 3 ] || fail "three arguments: bridge or scaler, the binary, and LAYOUT:TAG"
kind=$1 binary=$2 image=$3
umoci=${UMOCI:-umoci}
epoch=${SOURCE_DATE_EPOCH:-0}
layout=${image%:*} tag=${image##*:}
[ "$layout" != "$image" ] && [ -n "$tag" ] || fail "the third argument is LAYOUT:TAG, not '$image'"
type -P "$umoci" >/dev/null || fail "umoci not found: run deploy/tools.sh, and set UMOCI=target/tools/bin/umoci"

case $(uname -m) in
  x86_64) architecture=amd64 ;;
  aarch64) architecture=arm64 ;;
  *) fail "the architecture $(uname -m) is not known" ;;
esac
case $kind in
  bridge)
    program=scalebridge command=(serve) ports=(9096/tcp 9097/tcp)
    environment=(SCALEBRIDGE_CONFIG=/etc/scalebridge/scalebridge.yaml)
    ;;
  *)
    program=scalebridge-scaler command=(worker --config /etc/scalebridge/scaler.yaml) ports=(9098/tcp) environment=()
    ;;
esac

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$(dirname "${BASH_SOURCE[0]}")/rootfs.sh" "$kind" "$binary" "$work/files"

# One layer. Owners are written into it, so that this needs no root.
layer() {
  tar --sort=name --mtime="@$epoch" --numeric-owner --format=pax \
    --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime --file="$work/layer.tar" "$@"
}
mkdir -p "$work/files/parents/var/lib" "$work/files/owned/var/lib"
mv "$work/files/data" "$work/files/owned/var/lib/scalebridge"
layer --create --owner=0 --group=0 --directory="$work/files/root" .
layer --append --owner=0 --group=0 --directory="$work/files/parents" ./var
layer --append --owner=65532 --group=65532 --directory="$work/files/owned" ./var/lib/scalebridge

created=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
options=(
  --no-history --created "$created" --architecture "$architecture" --os linux
  --config.user 65532:65532 --config.workingdir /var/lib/scalebridge --config.volume /var/lib/scalebridge
  --config.entrypoint "/usr/local/bin/$program"
)
for word in "${command[@]}"; do options+=(--config.cmd "$word"); done
for port in "${ports[@]}"; do options+=(--config.exposedports "$port"); done
for variable in "${environment[@]}"; do options+=(--config.env "$variable"); done

[ -e "$layout/oci-layout" ] || "$umoci" init --layout "$layout"
"$umoci" new --image "$image"
"$umoci" raw add-layer --history.created "$created" --history.created_by "image.sh $kind" --image "$image" "$work/layer.tar"
"$umoci" config "${options[@]}" --image "$image"
"$umoci" gc --layout "$layout"
echo "$image: $(du -sk "$layout" | cut -f1) kB"

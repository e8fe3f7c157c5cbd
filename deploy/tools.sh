#!/usr/bin/env bash
# Brings what the demo and the tests run beside the bridge into target/tools:
#
#   bin/prometheus bin/promtool bin/alertmanager bin/amtool
#   venv/          a Python with the packages of deploy/demo/requirements.txt
#
# and with the argument `llvm`, for deploy/release.sh, this instead:
#
#   bin/llvm-profdata, a link to that of Rust's llvm-tools, or of Debian's LLVM, which is installed
#   bin/llvm-bolt, a link to that of the machine's LLVM, or of Debian's
#
# It does nothing when all of it is there. Debian's servers are unpacked, not installed:
# installing them would start services on ports 9090 and 9093. Only the templates and pages that
# Debian's programs look for in /usr/share/prometheus go there.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p "${CARGO_TARGET_DIR:-target}/tools/bin"
tools=$(cd "${CARGO_TARGET_DIR:-target}/tools" && pwd)
requirements=deploy/demo/requirements.txt
export DEBIAN_FRONTEND=noninteractive

say() { echo "tools: $*" >&2; }
fail() { say "$*"; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "'$*' has to run as root, and there is no sudo: run it yourself, then start again"
  fi
}

# Runs a command of apt's that needs the package lists, and fetches the lists if it fails:
# a fresh machine has none, and old lists name files that are gone.
with_package_lists() {
  command -v apt-get >/dev/null || fail "no apt-get here: this needs Debian, or $missing on PATH"
  "$@" 2>"$tools/apt.log" && return
  say "fetching Debian's package lists"
  as_root apt-get update -qq >&2 || fail "apt-get update failed, see above"
  "$@" || fail "'$*' failed, see above"
}

# --- Prometheus and Alertmanager ---------------------------------------------------------

# is PROGRAM NAME: it starts, and says that it is NAME.
is() { "$1" --version 2>&1 | grep -q "^$2, version"; }

have_servers() {
  is "$tools/bin/prometheus" prometheus && is "$tools/bin/promtool" promtool &&
    is "$tools/bin/alertmanager" alertmanager && is "$tools/bin/amtool" amtool
}

forget_servers() {
  rm -rf "$tools"/bin/{prometheus,promtool,alertmanager,amtool} "$tools/share"
}

# Links the programs on PATH; Debian calls Alertmanager's prometheus-alertmanager.
link_servers() {
  local name other path
  for name in prometheus promtool alertmanager amtool; do
    path=
    for other in "$name" "prometheus-$name"; do
      path=$(type -P "$other") && is "$path" "$name" && break
      path=
    done
    [ -n "$path" ] || return 1
    ln -sf "$path" "$tools/bin/$name"
  done
}

unpack_servers() {
  local missing="prometheus, promtool, alertmanager and amtool" package
  say "fetching Debian's prometheus and prometheus-alertmanager"
  rm -rf "$tools/debian" && mkdir "$tools/debian"
  download() (
    cd "$tools/debian"
    local options=(-qq)
    # Root downloads as the user _apt otherwise, who may not write here.
    [ "$(id -u)" != 0 ] || options+=(-o APT::Sandbox::User=root)
    apt-get "${options[@]}" download prometheus prometheus-alertmanager >&2
  )
  with_package_lists download
  for package in "$tools"/debian/*.deb; do
    dpkg -x "$package" "$tools/debian/root"
  done
  for name in prometheus promtool amtool; do
    mv -f "$tools/debian/root/usr/bin/$name" "$tools/bin/$name"
  done
  mv -f "$tools/debian/root/usr/bin/prometheus-alertmanager" "$tools/bin/alertmanager"
  rm -rf "$tools/share"
  mv "$tools/debian/root/usr/share/prometheus" "$tools/share"
  rm -rf "$tools/debian"
}

# Debian's Alertmanager does not start without its templates in this very place.
place_templates() {
  [ -d "$tools/share" ] && [ ! -e /usr/share/prometheus/alertmanager/default.tmpl ] || return 0
  say "copying Prometheus's and Alertmanager's templates to /usr/share/prometheus"
  as_root cp -rT "$tools/share" /usr/share/prometheus
}

# --- Python ------------------------------------------------------------------------------

venv_is_current() {
  cmp -s "$requirements" "$tools/venv/installed.txt" && "$tools/venv/bin/python" -c ''
}

make_venv() {
  local missing="python3 with its venv module"
  say "making a Python environment with $requirements"
  rm -rf "$tools/venv"
  if ! python3 -m venv "$tools/venv" >"$tools/venv.log" 2>&1; then
    # Debian's python3 comes without what a virtual environment needs.
    say "installing Debian's python3-venv"
    install() { as_root apt-get install -y -qq --no-install-recommends python3-venv >/dev/null; }
    with_package_lists install
    rm -rf "$tools/venv"
    /usr/bin/python3 -m venv "$tools/venv" || fail "python3 -m venv failed, see above"
  fi
  "$tools/venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
    --no-deps -r "$requirements" >&2 || fail "pip could not install $requirements, see above"
  cp "$requirements" "$tools/venv/installed.txt"
}

# --- LLVM --------------------------------------------------------------------------------

# The first LLVM whose llvm-profdata reads what this rustc writes (version 10 of raw profiles).
llvm=19

# find_llvm PROGRAM DIRECTORY...: links the first PROGRAM that is new enough, of those in a DIRECTORY and on PATH.
find_llvm() {
  local program=$1 path
  shift
  for path in "${@/%//$program}" "$(type -P "$program-$llvm")" "$(type -P "$program")"; do
    [ -x "$path" ] && is_new_enough "$path" && ln -sf "$(readlink -f "$path")" "$tools/bin/$program" && return
  done
  return 1
}

is_new_enough() {
  local version
  version=$("$1" --version 2>/dev/null | sed -n 's/.*LLVM version \([0-9]*\).*/\1/p')
  [ "${version:-0}" -ge $llvm ]
}

# Rust's own is the right one, but its component is seldom there; Debian's has its version in its name.
find_profdata() { find_llvm llvm-profdata "$(rustc --print target-libdir)/../bin"; }

# It has to find merge-fdata and what it puts into a program that counts where it was built to find them.
find_bolt() {
  local root
  find_llvm llvm-bolt && root=$(dirname "$(readlink -f "$tools/bin/llvm-bolt")")/.. &&
    [ -x "$root/bin/merge-fdata" ] && [ -e "$root/lib/libbolt_rt_instr.a" ]
}

have_profdata() {
  local missing="llvm-profdata of LLVM $llvm or newer ('rustup component add llvm-tools')"
  find_profdata && return
  say "installing Debian's llvm-$llvm"
  install() { as_root apt-get install -y -qq --no-install-recommends "llvm-$llvm" >/dev/null; }
  with_package_lists install
  find_profdata || fail "there is no $missing"
}

have_bolt() {
  local missing="llvm-bolt of LLVM $llvm or newer, with its libraries"
  find_bolt && return
  say "installing Debian's bolt-$llvm"
  install() {
    as_root apt-get install -y -qq --no-install-recommends "bolt-$llvm" "libbolt-$llvm-dev" >/dev/null
  }
  with_package_lists install
  find_bolt || fail "there is no $missing"
}

# -----------------------------------------------------------------------------------------

# The README's way to try a bridge, which a test goes.
have_curl() {
  local missing=curl
  command -v curl >/dev/null && return
  say "installing Debian's curl"
  install() { as_root apt-get install -y -qq --no-install-recommends curl >/dev/null; }
  with_package_lists install
}

exec 9>"$tools/lock"
flock 9 # two that start at once: the second waits and finds all done
if [ "${1:-}" = llvm ]; then
  have_profdata
  have_bolt
  exit
fi
have_servers || { forget_servers && link_servers; } || unpack_servers
place_templates
have_servers || fail "the programs in $tools/bin do not start on this machine"
venv_is_current || make_venv
have_curl

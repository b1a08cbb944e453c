#!/usr/bin/env bash
# cargo-deny over the workspace: licences, sources and bans always; known vulnerabilities when their database can be had.
#
# The RustSec database is a git repository on the Internet. A machine that cannot reach it (a closed network, some CI)
# checks with the copy that it has, and says so; with no copy it says loudly that nothing was checked. That is not an
# error: what stands in the way is the network and not the code. Set AMBIT_REQUIRE_ADVISORIES=1 where it should be one.
set -euo pipefail
cd "$(dirname "$0")/.."

MANIFEST="$PWD/dataplane/Cargo.toml"
DATABASE_URL=https://github.com/RustSec/advisory-db

deny() { tools/with-rust cargo-deny --locked --manifest-path "$MANIFEST" --log-level error "$@"; }

deny check --hide-inclusion-graph bans licenses sources

if GIT_TERMINAL_PROMPT=0 git -c http.lowSpeedLimit=1 -c http.lowSpeedTime=10 ls-remote --exit-code "$DATABASE_URL" HEAD >/dev/null 2>&1; then
    deny check advisories
elif compgen -G "${CARGO_HOME:-$HOME/.cargo}/advisory-dbs/*/crates" >/dev/null; then
    echo "advisories: database not reachable, checking with the copy that is here"
    deny --offline check advisories
else
    echo "advisories NOT CHECKED: $DATABASE_URL is not reachable from here and no copy of it is on this machine"
    [[ -z ${AMBIT_REQUIRE_ADVISORIES:-} ]]
fi

#!/usr/bin/env bash
# Fail when a generated file differs from what its source makes of it.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

# check FOLDER COMMAND: FOLDER holds all that was generated into $fresh/FOLDER, and just so.
check() {
    local generated
    for generated in "$fresh/$1"/*; do
        diff -u --label "$1/${generated##*/}" --label "generated" "$1/${generated##*/}" "$generated" || {
            echo "$1/${generated##*/} is not what its source makes of it: run '$2' and commit the result" >&2
            exit 1
        }
    done
}

mkdir -p "$fresh/mesh/wire" "$fresh/deploy/crds"
.venv/bin/python proto/generate.py "$fresh/mesh/wire"
check mesh/wire "make proto"
.venv/bin/python -m deploy.generate "$fresh/deploy/crds"
check deploy/crds "make crds"
diff <(ls deploy/crds) <(ls "$fresh/deploy/crds") || { echo "deploy/crds has files of its own: run 'make crds'" >&2; exit 1; }
echo "mesh/wire and deploy/crds are what their sources make of them"

#!/usr/bin/env bash
# Fail when mesh/wire differs from what proto/*.proto generates (`make proto` writes it anew).
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
.venv/bin/python proto/generate.py "$fresh"
for generated in "$fresh"/*; do
    diff -u --label "mesh/wire/${generated##*/}" --label "generated" "mesh/wire/${generated##*/}" "$generated" || {
        echo "mesh/wire/${generated##*/} is not what proto/ generates: run 'make proto' and commit the result" >&2
        exit 1
    }
done
echo "mesh/wire is what proto/ generates"

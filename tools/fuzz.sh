#!/usr/bin/env bash
# Fuzz the parsers of foreign bytes: `tools/fuzz.sh SECONDS [TARGET...]`, each target for so long, two at a time.
#
# A stable compiler does: the coverage that libFuzzer wants is an LLVM pass, and only sanitizers need a nightly one. The
# sources are free of unsafe code, so what is looked for are panics, overflows and broken promises.
# What is found is kept in ~/.cache/ambit/fuzz/TARGET and, with FUZZ_KEEP=1, its smallest equivalent in the checkout, in
# dataplane/fuzz/corpus/TARGET. An input that fails is named, and stays in dataplane/fuzz/artifacts/TARGET.
set -euo pipefail
cd "$(dirname "$0")/.."

SECONDS_EACH="${1:?usage: tools/fuzz.sh SECONDS [TARGET...]}"
shift
FUZZ=dataplane/fuzz
KEPT="${XDG_CACHE_HOME:-$HOME/.cache}/ambit/fuzz"
PARALLEL=2
MAX_INPUT_BYTES=4096
MAX_MEBIBYTES=1024
HOST=$(tools/with-rust rustc -vV | sed -n 's/^host: //p')
# As cargo-fuzz has it, without the sanitizer.
FLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"

TARGETS=("$@")
if ((${#TARGETS[@]} == 0)); then
    mapfile -t TARGETS < <(basename -s .rs "$FUZZ"/fuzz_targets/*.rs)
fi

echo "fuzz: building ${#TARGETS[@]} targets"
# Beside the other builds' cache, not in it: its flags are others. With --target they are not those of build scripts.
TARGET_DIR=$(tools/with-rust bash -c 'echo "$CARGO_TARGET_DIR"')/fuzz
RUSTFLAGS="$FLAGS" CARGO_TARGET_DIR="$TARGET_DIR" tools/with-rust \
    cargo build --release --locked --quiet --target "$HOST" --manifest-path "$FUZZ/Cargo.toml"

run() { # run TARGET: fuzz it, keep what was found, and tell in one line
    local target=$1 binary="$TARGET_DIR/$HOST/release/$1" work="$KEPT/$1" log status=0
    mkdir -p "$work" "$FUZZ/corpus/$target" "$FUZZ/artifacts/$target"
    log=$(mktemp)
    "$binary" "$work" "$FUZZ/corpus/$target" -max_total_time="$SECONDS_EACH" -max_len="$MAX_INPUT_BYTES" \
        -rss_limit_mb="$MAX_MEBIBYTES" -timeout=10 -print_final_stats=1 \
        -artifact_prefix="$FUZZ/artifacts/$target/" >"$log" 2>&1 || status=$?
    if ((status != 0)); then
        echo "fuzz: $target FAILED" >&2
        tail -n 40 "$log" >&2
    else
        local runs covered
        runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
        covered=$(grep -o 'cov: [0-9]*' "$log" | tail -n 1)
        echo "fuzz: $target: $runs runs, ${covered:-cov: 0}"
        if [[ -n ${FUZZ_KEEP:-} ]]; then
            "$binary" -merge=1 "$FUZZ/corpus/$target" "$work" >>"$log" 2>&1
        fi
    fi
    rm -f "$log"
    return "$status"
}

failed=0
for target in "${TARGETS[@]}"; do
    while (($(jobs -rp | wc -l) >= PARALLEL)); do
        wait -n || failed=1
    done
    run "$target" &
done
while (($(jobs -p | wc -l) > 0)); do
    wait -n || failed=1
done
exit "$failed"

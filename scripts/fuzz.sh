#!/usr/bin/env bash
# Runs a fuzz target on the stable compiler: fuzz.sh TARGET SECONDS [keep]
#
# cargo-fuzz needs a nightly compiler for the coverage that guides libFuzzer. This script asks LLVM for the
# coverage instead, and leaves out the sanitizers, which need nightly. With `keep`, the corpus becomes the
# smallest choice of old and new inputs that reaches as much.
set -euo pipefail
cd "$(dirname "$0")/../fuzz"
target=${1:?which target?}
seconds=${2:?how many seconds?}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-../target/fuzz}
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 -Cdebug-assertions=yes"
RUSTFLAGS=$(tr -s '\n ' ' ' <<<"$RUSTFLAGS")
export RUSTFLAGS
host=$(rustc -vV | sed -n 's/^host: //p')
# The flags apply only to the target: build scripts and macros must not be instrumented.
cargo build --quiet --release --target "$host" --bin "$target"
found=$(mktemp -d)
trap 'rm -rf "$found"' EXIT
mkdir -p "$found"/{inputs,files} "corpus/$target"
run() { TMPDIR=$found/files "$CARGO_TARGET_DIR/$host/release/$target" -artifact_prefix="$CARGO_TARGET_DIR/" "$@"; }
# New inputs are written to the first folder.
run -max_total_time="$seconds" -timeout=10 -max_len=512 -print_final_stats=1 "$found/inputs" "corpus/$target"
[ "${3:-}" = keep ] || exit 0
mkdir "$found/fewer"
run -merge=1 "$found/fewer" "corpus/$target" "$found/inputs"
cp -r "$found/fewer" "corpus/$target.new"
rm -r "corpus/$target"
mv "corpus/$target.new" "corpus/$target"

#!/usr/bin/env bash
# Measures which lines of the crate the tests on Linux run, including those of the blocking API:
#
#   scripts/coverage.sh [CARGO TEST ARGUMENTS]
#
# It prints a line for each source file, and writes the lines that no test runs to
# target/coverage/uncovered.txt. The compiler inserts the counters (-C instrument-coverage), and LLVM's tools
# of the same version, which Debian has, read their files. A process that is killed writes no counters, so
# lines that only such processes run count as not run.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

version=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
need "llvm-$version"
bin=/usr/lib/llvm-$version/bin
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/coverage
mkdir -p "$CARGO_TARGET_DIR"
counts=$(realpath "$CARGO_TARGET_DIR")/counts
rm -rf "$counts"
mkdir -p "$counts"
# Processes of other users count as well.
chmod 1777 "$counts"

export RUSTFLAGS="${RUSTFLAGS:-} -Cinstrument-coverage"
export LLVM_PROFILE_FILE=$counts/%4m.profraw
# Otherwise the programs from before the last change are counted too.
cargo clean --quiet --package sockpipe
cargo build --quiet --locked --features blocking --examples
cargo test --locked --features blocking --no-fail-fast --lib --tests "$@" || tests=failed

# Programs that ran without the environment variable wrote their counters to their working directory.
rm -f default_*.profraw
"$bin/llvm-profdata" merge --sparse --failure-mode=warn "$counts"/*.profraw -o "$counts/all.profdata"
objects=()
for program in "$CARGO_TARGET_DIR"/debug/deps/*-???????????????? "$CARGO_TARGET_DIR"/debug/examples/*; do
    case $program in *.*) continue ;; esac
    # Skips the second names of the same programs.
    case $program in */examples/*-????????????????) continue ;; esac
    # A compiler that was stopped may have left a directory there.
    [ ! -f "$program" ] || [ ! -x "$program" ] || objects+=(${objects[0]:+--object} "$program")
done
mapfile -t sources < <(find src -name "*.rs" ! -path "*windows*" ! -name tests.rs)
"$bin/llvm-cov" report --instr-profile="$counts/all.profdata" "${objects[@]}" --show-region-summary=false \
    --show-branch-summary=false "${sources[@]}"
"$bin/llvm-cov" show --instr-profile="$counts/all.profdata" "${objects[@]}" "${sources[@]}" |
    awk '/^[^ ].*:$/ { file = $0 } /^ *[0-9]+\| +0\|/ { sub(/^ */, ""); print file " " $0 }' |
    sed "s|$PWD/||" >"$CARGO_TARGET_DIR/uncovered.txt"
say "the lines that nothing runs: $CARGO_TARGET_DIR/uncovered.txt ($(wc -l <"$CARGO_TARGET_DIR/uncovered.txt"))"
[ "${tests:-}" != failed ] || die "some tests failed"

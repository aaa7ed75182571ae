#!/usr/bin/env bash
# Finds faults that usual tests do not see: races, undefined behaviour, and memory orders that this processor
# never shows.
#
#   scripts/soundness.sh address     runs tests with AddressSanitizer, and builds the standard library with
#                                    it too
#   scripts/soundness.sh thread      does the same with ThreadSanitizer
#   scripts/soundness.sh miri        runs unit tests in Miri, which detects undefined behaviour; it has no
#                                    sockets, so tests that need them are left out
#   scripts/soundness.sh loom        runs every order of accesses to shared memory; see model/
#   scripts/soundness.sh schedules   runs 20,000 random schedules of each case of a switch to shared memory
#
# The first three need a nightly compiler with its sources:
#   rustup toolchain install nightly --profile minimal --component miri,rust-src
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
target=x86_64-unknown-linux-gnu

# tokio registers descriptors with a duplicate of the one that it waits with, and ThreadSanitizer does not
# know that the two are the same. So the first event of each registration looks like a race with its creation.
expect_tokio() {
    suppressions=$(mktemp)
    trap 'rm -f "$suppressions"' EXIT
    echo 'race:tokio::runtime::io::registration_set::RegistrationSet>::allocate' >"$suppressions"
    chmod 644 "$suppressions" # tests run processes of other users
    export TSAN_OPTIONS="suppressions=$suppressions ${TSAN_OPTIONS:-}"
}

sanitize() { # SANITIZER [OPTIONS of the tests that use strace]
    # The standard library is built with it as well, because code that is not would cause false reports.
    export RUSTFLAGS="-Zsanitizer=$1"
    local options=(--locked -Zbuild-std --target "$target" --features "blocking shared-memory")
    cargo +nightly build "${options[@]}" --examples
    cargo +nightly test "${options[@]}" --lib --test contract --test unix_inherited
    # Some of these tests run processes under strace, where the search for leaks fails and ends them.
    export ASAN_OPTIONS="detect_leaks=0 ${ASAN_OPTIONS:-}"
    cargo +nightly test "${options[@]}" --test unix_peers --test unix_shared_memory -- "${@:2}"
}

verb=${1:-}
case $verb in
address) sanitize "$verb" ;;
thread)
    expect_tokio
    # ThreadSanitizer itself makes calls that this test lets fail.
    sanitize "$verb" --skip a_call_that_fails_on_the_way_into_memory
    ;;
miri)
    cargo +nightly miri test --locked --lib --no-default-features --features "blocking shared-memory" shared_memory
    ;;
loom) cargo test --release --locked --manifest-path model/Cargo.toml ;;
schedules) SOCKPIPE_FULL=1 cargo test --release --locked --lib --features shared-memory lane::tests -- --nocapture ;;
*)
    # The comment at the top is the help.
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
    ;;
esac

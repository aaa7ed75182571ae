#!/usr/bin/env bash
# Finds faults that usual tests do not see: races, undefined behaviour, and memory orders that this processor
# never shows.
#
#   scripts/soundness.sh address     runs the unit tests, the contract and Unix's tests with AddressSanitizer
#   scripts/soundness.sh thread      runs part of them with ThreadSanitizer, and builds the standard library
#                                    with it too
#   scripts/soundness.sh miri        runs unit tests in Miri, which detects undefined behaviour; it has no
#                                    sockets, so tests that need them are left out
#   scripts/soundness.sh loom        runs every order of accesses to shared memory; see model/
#   scripts/soundness.sh schedules   runs 20,000 random schedules of each case of a switch to shared memory
#
# `thread` and `miri` need a nightly compiler with its sources:
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

address() {
    # A stable compiler has the sanitizer too. These tests cannot hold with it:
    local skipped=(
        # In a process without /proc and without the option below, the search for leaks fails.
        --skip a_passed_socket_is_used_without_proc_and_dev_fd
        # The sanitizer itself makes calls and instructions, and opens files.
        --skip a_killed_first_instance_confirms_only_what_it_did
        --skip reads_and_writes_take_as_many_instructions_as_tokio
        --skip no_file_is_opened_that_a_child_would_inherit
    )
    local options=(--locked --target "$target" --features "blocking shared-memory")
    export RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address
    cargo build "${options[@]}" --examples
    cargo test "${options[@]}" --lib --test contract --test unix_inherited
    # Some of these tests run processes under strace, where the search for leaks fails and ends them.
    export ASAN_OPTIONS="detect_leaks=0 ${ASAN_OPTIONS:-}"
    cargo test "${options[@]}" --test 'unix_*' -- "${skipped[@]}"
}

thread() {
    # The standard library is built with it as well, because code that is not would cause false reports.
    export RUSTFLAGS=-Zsanitizer=thread
    local options=(--locked -Zbuild-std --target "$target" --features "blocking shared-memory")
    cargo +nightly build "${options[@]}" --examples
    # ThreadSanitizer itself makes calls that the skipped test lets fail.
    cargo +nightly test "${options[@]}" --lib --test contract --test unix_inherited --test unix_peers \
        --test unix_shared_memory -- --skip a_call_that_fails_on_the_way_into_memory
}

verb=${1:-}
case $verb in
address) address ;;
thread)
    expect_tokio
    thread
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

#!/usr/bin/env bash
# Runs the code for macOS and the BSDs on Linux. Where those kernels' answers differ from Linux's, a library
# replaces Linux's; every program of the build is linked to it first, see scripts/kernels/personality.c.
#
#   scripts/kernels.sh [SYSTEM...] [-- CARGO TEST ARGUMENTS]
#
# The systems are darwin, freebsd, netbsd and openbsd; without a name it runs all of them. Without arguments for
# cargo it runs the unit tests, the contract, the tests that only Unix has, and those of the blocking API.
# scripts/kernels/skipped lists the tests that cannot pass there, each with its reason. They are counted.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

systems=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case $1 in
    darwin | freebsd | netbsd | openbsd) systems+=("$1") ;;
    *) die "no such system: $1" ;;
    esac
    shift
done
[ $# -eq 0 ] || shift
[ ${#systems[@]} -gt 0 ] || systems=(darwin freebsd netbsd openbsd)

command -v cc >/dev/null || need gcc libc6-dev
target=$(realpath -m "${CARGO_TARGET_DIR:-target}/kernels")
export CARGO_TARGET_DIR=$target CARGO_PROFILE_DEV_DEBUG=0 CARGO_INCREMENTAL=0
# Without this flag, rustix makes the system calls itself instead of through libc.
export RUSTFLAGS="--cfg rustix_use_libc"

# Makes the library, a linker that puts it first, and a compiler that uses that linker for this project's own
# programs. Their dependencies are built once for all systems. LD_PRELOAD would be lost when a test clears the
# environment, and would reach other people's programs.
personality() { # SYSTEM
    local dir=$target/$1
    mkdir -p "$dir"
    cc -shared -fPIC -O1 -Wall -Wextra -Werror "-DSYSTEM=${1^^}" -o "$dir/libpersonality.so" \
        scripts/kernels/personality.c
    cat >"$dir/link" <<-SH
		#!/bin/sh
		exec cc -Wl,--no-as-needed "$dir/libpersonality.so" -Wl,-rpath,"$dir" "\$@"
	SH
    cat >"$dir/rustc" <<-SH
		#!/bin/sh
		rustc=\$1
		shift
		exec "\$rustc" "\$@" --cfg sockpipe_posix --cfg 'sockpipe_posix="$1"' -C linker="$dir/link" -C linker-flavor=gcc
	SH
    chmod +x "$dir/link" "$dir/rustc"
    export RUSTC_WORKSPACE_WRAPPER=$dir/rustc
}

tests_of_unix() {
    local file
    for file in tests/contract.rs tests/blocking.rs tests/unix_*.rs; do
        file=${file##*/}
        printf '%s\n' --test "${file%.rs}"
    done
}

failed=()
for system in "${systems[@]}"; do
    personality "$system"
    # Each line has the systems, the test and the reason.
    skips=() reasons=
    while read -r on name reason; do
        case " ${on//,/ } " in
        *" $system "* | *" all "*)
            skips+=(--skip "$name")
            reasons+="  $name: $reason"$'\n'
            ;;
        esac
    done < <(grep -v '^#' scripts/kernels/skipped)
    [ -z "$reasons" ] || printf '%s: not run:\n%s' "$system" "$reasons"
    # The tests run the examples.
    cargo build --locked --examples --features blocking
    if [ $# -gt 0 ]; then
        cargo test --locked --no-fail-fast --features blocking "$@" -- --exact "${skips[@]}" || failed+=("$system")
    else
        mapfile -t names < <(tests_of_unix)
        cargo test --locked --no-fail-fast --features blocking --lib "${names[@]}" -- --exact "${skips[@]}" ||
            failed+=("$system")
    fi
    printf '%s: %d tests not run\n' "$system" $((${#skips[@]} / 2))
done
[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}"

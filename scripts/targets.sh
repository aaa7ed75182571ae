#!/usr/bin/env bash
# Builds the tests for other processors and C libraries, and runs them where this machine can.
#
#   scripts/targets.sh [--at-hand] [NAME...]
#
# The names are i686 (32 bits, run), musl (x86_64, static, run) and macos (aarch64, only linked, which shows
# missing symbols). Without a name it takes all of them. --at-hand takes only those whose standard library is in
# the cache, because building one takes minutes.
#
# The linker is zig's, from PyPI. Without rustup's target it builds the standard library from Debian's sources,
# once per compiler, under $SOCKPIPE_CI_CACHE (default ~/.cache/sockpipe-ci).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

at_hand=
if [ "${1:-}" = --at-hand ]; then
    at_hand=1
    shift
fi
names=("$@")
[ ${#names[@]} -gt 0 ] || names=(i686 musl macos)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/targets

# Sets ZIG, which links for the target that its first argument has.
get_zig() {
    local root
    root=$CACHE/zig-$(cksum <scripts/targets/requirements.txt | cut -d' ' -f1)
    if [ ! -e "$root/ready" ]; then
        need_command python3 python3
        python3 -c 'import ensurepip, venv' 2>/dev/null || need python3-venv
        say "getting zig"
        python3 -m venv --clear "$root"
        "$root/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --only-binary :all: \
            --require-hashes -r scripts/targets/requirements.txt
        : >"$root/ready"
    fi
    ZIG=$root/bin/cargo-zigbuild
    export PATH=$root/bin:$PATH
}

# linker ZIG_TARGET: prints a program that links for it.
linker() {
    local program
    program=$(realpath -m "$CARGO_TARGET_DIR")/link-$1
    mkdir -p "${program%/*}"
    printf '#!/bin/sh\nexec "%s" zig cc -- -g -target %s "$@"\n' "$ZIG" "$1" >"$program"
    chmod +x "$program"
    printf '%s' "$program"
}

# The lib's tests, the contract's and those of what is Unix's alone.
tests() {
    local file
    printf '%s\n' --lib --test contract
    for file in tests/unix_*.rs; do
        file=${file##*/}
        printf '%s\n' --test "${file%.rs}"
    done
}

run() { # NAME
    local target skipped=() names on name reason
    case $1 in
    i686) target=i686-unknown-linux-gnu ;;
    musl) target=x86_64-unknown-linux-musl ;;
    macos) target=aarch64-apple-darwin ;;
    *) die "no such target: $1" ;;
    esac
    if [ -n "$at_hand" ] && ! has_std "$(rustc --print sysroot)" "$target" &&
        ! compgen -G "$CACHE/std-build-$target-*" >/dev/null; then
        say "$1: not run, as there is no standard library of $target at hand; SOCKPIPE_FULL=1 makes it"
        return
    fi
    get_zig
    case $1 in
    i686)
        # Its C library, for the programs that are run.
        need libc6-i386
        CARGO_TARGET_I686_UNKNOWN_LINUX_GNU_LINKER=$(linker x86-linux-gnu.2.36)
        export CARGO_TARGET_I686_UNKNOWN_LINUX_GNU_LINKER
        ;;
    musl)
        CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER=$(linker x86_64-linux-musl)
        export CARGO_TARGET_X86_64_UNKNOWN_LINUX_MUSL_LINKER RUSTFLAGS="-C link-self-contained=no"
        ;;
    macos)
        CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER=$(linker aarch64-macos)
        # Debian's compiler has no rust-objcopy to strip with.
        export CARGO_TARGET_AARCH64_APPLE_DARWIN_LINKER CARGO_PROFILE_DEV_STRIP=none
        ;;
    esac
    use_target "$target" build
    if [ "$1" = macos ]; then
        "${CARGO_CMD[@]}" test --locked --target "$target" --no-run --features blocking
        "${CARGO_CMD[@]}" build --locked --target "$target" -p sockpipe-cli
        return
    fi
    while read -r on name reason; do
        [ "$on" != "$1" ] || {
            say "$1: not run: $name: $reason"
            skipped+=(--skip "$name")
        }
    done < <(grep -v '^#' scripts/targets/skipped)
    mapfile -t names < <(tests)
    # The tests run the examples.
    "${CARGO_CMD[@]}" build --locked --target "$target" --examples
    "${CARGO_CMD[@]}" test --locked --no-fail-fast --target "$target" "${names[@]}" -- --exact "${skipped[@]}"
}

failed=()
for name in "${names[@]}"; do
    say "$name"
    # In a subshell, as the environment differs from target to target.
    code=0
    (run "$name") || code=$?
    [ "$code" = 0 ] || failed+=("$name")
done
[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}"

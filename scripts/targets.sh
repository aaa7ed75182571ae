#!/usr/bin/env bash
# Builds the tests for other processors and C libraries, and runs them where this machine can.
#
#   scripts/targets.sh [--at-hand] [NAME...]
#
# i686 (32 bits) and musl (x86_64, static) run as they are. aarch64, s390x (big-endian), armv7 and riscv64 run
# under qemu. macos (aarch64) is only linked, which shows missing symbols. Without a name it takes all but armv7
# and riscv64. --at-hand takes only those whose standard library is in the cache, and exits with 77 if none is.
#
# The linker is zig's, from PyPI. Without rustup's target it uses Debian's package of the standard library, which
# is there for the oldest Rust that the crate supports, and otherwise builds one from Debian's sources. Both are
# kept under $SOCKPIPE_CI_CACHE (default ~/.cache/sockpipe-ci).
#
# scripts/targets/skipped lists the tests that cannot pass, each with its reason. They are counted. Where the
# reason is qemu, scripts/targets/qemu.c proves it in each run.
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
[ ${#names[@]} -gt 0 ] || names=(i686 musl macos aarch64 s390x)
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

# linker ZIG_TARGET [FLAG...]: prints a program that links for it.
linker() {
    local program zig=$1
    shift
    program=$(realpath -m "$CARGO_TARGET_DIR")/link-$zig
    mkdir -p "${program%/*}"
    printf '#!/bin/sh\nexec "%s" zig cc -- -g -target %s %s "$@"\n' "$ZIG" "$zig" "$*" >"$program"
    chmod +x "$program"
    printf '%s' "$program"
}

# std_at_hand TARGET [ARCHITECTURE]: whether the standard library that use_rust would take is there.
std_at_hand() {
    local debian
    if has_std "$(rustc --print sysroot)" "$1"; then
        return
    elif [ -n "${2:-}" ] && command -v apt-cache >/dev/null && ! apt-cache show rustc >/dev/null 2>&1; then
        # Without package lists, debian_version would download them.
        return 1
    elif [ -n "${2:-}" ] && debian=$(debian_version "$(oldest_rust)") && [ -n "$debian" ]; then
        has_std "$CACHE/rust-$debian/usr" "$1"
    else
        [ -x /usr/bin/rustc ] && [ -d "$(std_folder /usr/bin "$1" build)" ]
    fi
}

# use_rust TARGET [ARCHITECTURE]: sets CARGO_CMD to a cargo that can build for TARGET, one of Debian's
# architectures if that is given.
use_rust() {
    local oldest debian
    oldest=$(oldest_rust)
    if [ -n "${2:-}" ] && ! has_std "$(rustc --print sysroot)" "$1" && debian=$(debian_version "$oldest") &&
        [ -n "$debian" ]; then
        unpack_debian "$oldest" "$debian"
        unpack_std "$debian" "$2" "$1"
        CARGO_CMD=("$BIN/cargo")
    else
        use_target "$1" build
    fi
}

# emulated MACHINE PROGRAM COMMAND...: runs the command where the kernel hands programs of MACHINE to qemu, also
# those that a test starts. If PROGRAM, which is one of them, does not run as it is, the command runs in a
# namespace, whose table of such programs is its own.
emulated() {
    local entry=/usr/lib/binfmt.d/qemu-$1.conf out child map
    if "$2" --version >/dev/null 2>&1; then
        "${@:3}"
        return
    fi
    [ "$(id -u)" = 0 ] || die "not root, and the kernel does not hand programs to qemu-$1"
    exec {out}>&1
    # shellcheck disable=SC2016
    coproc NAMESPACE {
        OUT=$out exec unshare --user --mount --propagation private bash -c '
            echo
            read -r _ || exit 2
            mount -t binfmt_misc none /proc/sys/fs/binfmt_misc &&
                grep ^: "$0" >/proc/sys/fs/binfmt_misc/register || {
                echo "a namespace cannot have programs handed to qemu; Linux 6.7 can" >&2
                exit 2
            }
            exec "$@" </dev/null >&"$OUT" {OUT}>&-' "$entry" "${@:3}"
    }
    child=${NAMESPACE_PID:-}
    read -r _ <&"${NAMESPACE[0]:-}" || die "cannot make a namespace to run programs for qemu-$1 in"
    # The namespace has the same users. Without them its programs would run as nobody.
    for map in uid_map gid_map; do
        awk '{ print $1, $1, $3 }' "/proc/self/$map" >"/proc/$child/$map" ||
            die "cannot write the $map of the namespace for qemu-$1"
    done
    echo >&"${NAMESPACE[1]}"
    wait "$child"
}

# wrong LINKER MACHINE PROGRAM: prints where qemu differs from the kernel, as lines of: fact, answer.
wrong() {
    local program=$CARGO_TARGET_DIR/qemu
    cc -O1 -Wall -Wextra -Werror -o "$program-here" scripts/targets/qemu.c
    "$1" -O1 -Wall -Wextra -Werror -o "$program-$2" scripts/targets/qemu.c
    facts "$program-here" >"$program-here.facts"
    facts "$program-$2" emulated "$2" "$3" >"$program-$2.facts"
    # Where qemu is right, the line is in both files.
    grep -vxFf "$program-here.facts" "$program-$2.facts" || true
}

# facts PROGRAM COMMAND...: prints the output of PROGRAM, run by COMMAND, and how many files the process opens that
# a child would inherit.
facts() {
    "${@:2}" strace -f -qq -e trace=openat -o "$1.calls" "$1"
    printf 'opens %d\n' "$(grep -F 'openat(' "$1.calls" | grep -cvF O_CLOEXEC)"
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
    local target debian='' zig machine='' libc='' loader flags=() link variable run=() facts='' arguments=()
    local skipped=() names on name reason code=0
    case $1 in
    i686) target=i686-unknown-linux-gnu debian=i386 zig=x86-linux-gnu.2.36 ;;
    musl) target=x86_64-unknown-linux-musl zig=x86_64-linux-musl ;;
    macos) target=aarch64-apple-darwin zig=aarch64-macos ;;
    aarch64) target=aarch64-unknown-linux-gnu debian=arm64 machine=aarch64 loader=ld-linux-aarch64.so.1 ;;
    s390x) target=s390x-unknown-linux-gnu debian=s390x machine=s390x loader=ld64.so.1 ;;
    armv7) target=armv7-unknown-linux-gnueabihf debian=armhf machine=arm loader=ld-linux-armhf.so.3 ;;
    riscv64) target=riscv64gc-unknown-linux-gnu machine=riscv64 loader=ld-linux-riscv64-lp64d.so.1 ;;
    *) die "no such target: $1" ;;
    esac
    if [ -n "$at_hand" ] && ! std_at_hand "$target" "$debian"; then
        say "$1: not run, as there is no standard library of $target at hand; SOCKPIPE_FULL=1 makes it"
        return 77
    fi

    get_zig
    case $1 in
    # Its C library, for the programs that are run.
    i686) need libc6-i386 ;;
    musl) export RUSTFLAGS="-C link-self-contained=no" ;;
    # Debian's compiler has no rust-objcopy to strip with.
    macos) export CARGO_PROFILE_DEV_STRIP=none ;;
    esac
    if [ -n "$machine" ]; then
        case $1 in armv7) libc=arm-linux-gnueabihf ;; *) libc=$machine-linux-gnu ;; esac
        zig=$libc.2.36
        need strace qemu-user-static "libc6-${debian:-$machine}-cross"
        # The programs name their loader and library, because tests clear the environment.
        flags=("-Wl,--dynamic-linker=/usr/$libc/lib/$loader" "-Wl,-rpath,/usr/$libc/lib")
        run=(emulated "$machine" "/usr/$libc/lib/$loader")
        # One test at a time: if a thread of another test holds one of qemu's locks during a fork, the child
        # waits for that lock forever.
        arguments=(--test-threads 1)
    fi
    link=$(linker "$zig" "${flags[@]}")
    variable=CARGO_TARGET_${target^^}_LINKER
    export "${variable//-/_}=$link"
    use_rust "$target" "$debian"

    if [ "$1" = macos ]; then
        "${CARGO_CMD[@]}" test --locked --target "$target" --no-run --features blocking
        "${CARGO_CMD[@]}" build --locked --target "$target" -p sockpipe-cli
        return
    fi

    [ -z "$machine" ] || facts=$(set -e && wrong "$link" "${run[@]:1}")
    [ -z "$facts" ] || say "$1: qemu is wrong in:"$'\n'"$facts"
    while read -r on name reason; do
        case ",$on," in
        *",$1,"*) ;;
        # A test that qemu keeps from passing runs as soon as qemu no longer does.
        ,qemu:*) grep -q "^${on#qemu:} " <<<"$facts" || continue ;;
        *) continue ;;
        esac
        say "$1: not run: $name: $reason"
        skipped+=(--skip "$name")
    done < <(grep -v '^#' scripts/targets/skipped)
    mapfile -t names < <(tests)
    local options=(--locked --target "$target" --features "blocking shared-memory")
    # The tests run the examples.
    "${CARGO_CMD[@]}" build "${options[@]}" --examples
    "${CARGO_CMD[@]}" test "${options[@]}" --no-run "${names[@]}"
    "${run[@]}" "${CARGO_CMD[@]}" test --no-fail-fast "${options[@]}" "${names[@]}" -- \
        --exact "${arguments[@]}" "${skipped[@]}" || code=$?
    say "$1: $((${#skipped[@]} / 2)) tests not run"
    return "$code"
}

failed=() absent=0
for name in "${names[@]}"; do
    say "$name"
    # In a subshell, as the environment differs from target to target. With `||` behind it, it would not end at
    # the first command that fails.
    set +e
    (set -e && run "$name")
    code=$?
    set -e
    case $code in
    0) ;;
    77) absent=$((absent + 1)) ;;
    *) failed+=("$name") ;;
    esac
done
[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}"
[ "$absent" != ${#names[@]} ] || exit 77

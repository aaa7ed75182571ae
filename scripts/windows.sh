#!/usr/bin/env bash
# Builds the Windows side of the crate on a Debian or Ubuntu machine, for x86_64-pc-windows-gnu with MinGW-w64,
# and runs it with Wine.
#
#   scripts/windows.sh setup                   prepare everything (the other verbs do so as well)
#   scripts/windows.sh test [ARGUMENTS]        cargo test: unit, integration and doc tests, examples built
#   scripts/windows.sh run EXAMPLE [ARGUMENTS] run an example
#   scripts/windows.sh build [ARGUMENTS]       cargo build
#   scripts/windows.sh clippy [ARGUMENTS]      cargo clippy --all-targets, warnings are errors
#   scripts/windows.sh exec PROGRAM [ARGUMENTS] run any Windows program in the same Wine
#   scripts/windows.sh stop                    end Wine, for all users of this cache; otherwise it would stay
#                                              for five minutes, and Debian's version 8 may use a core that long
#
# It uses rustup's target if that is installed (rustup target add x86_64-pc-windows-gnu). Otherwise it builds the
# standard library from Debian's sources, once per compiler.
#
# SOCKPIPE_CI_CACHE      the folder for that library and the Wine prefix (default ~/.cache/sockpipe-ci)
# SOCKPIPE_WINE          the Wine to use instead of the distribution's
# SOCKPIPE_WINESERVER    the server to use instead of that Wine's own, with a prefix beside it: see scripts/nt.sh
# SOCKPIPE_WINE_TIMEOUT  the time limit of one program under Wine, in seconds (default 600)
set -euo pipefail

# Wine maps a page at a fixed address. Where the kernel randomizes addresses, it has placed something else there
# about once in 5,000 starts, and the program ends with 1 before it prints anything.
if [ -z "${SOCKPIPE_ADDRESSES:-}" ] && setarch "$(uname -m)" --addr-no-randomize true 2>/dev/null; then
    SOCKPIPE_ADDRESSES=fixed exec setarch "$(uname -m)" --addr-no-randomize "$0" "$@"
fi

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

TARGET=x86_64-pc-windows-gnu

# Wine passes the environment to the programs unchanged, so CI's variables reach the tests.
prepare_wine() {
    WINE=${SOCKPIPE_WINE:-}
    [ -n "$WINE" ] || find_wine || {
        need wine64
        find_wine || die "wine64 is installed, but not where it is looked for"
    }
    export WINEPREFIX WINEDEBUG=${WINEDEBUG:--all}
    WINEPREFIX=$(prefix)
    # Wine must not make menu entries, or offer to download .NET or a browser engine.
    local overrides=${WINEDLLOVERRIDES:-}
    export WINEDLLOVERRIDES=${overrides:-winemenubuilder.exe,mscoree,mshtml=}
    # With a display, Wine's start-up shows a window and waits for it.
    unset DISPLAY WAYLAND_DISPLAY
    mkdir -p "$CACHE"
    (
        flock 9
        [ -e "$WINEPREFIX/ready" ] || make_prefix
    ) 9>"$CACHE/wine.lock"
    start_services
    # The override was for Wine's start. Without mscoree, Wine does not load programs built for .NET.
    WINEDLLOVERRIDES=${overrides:-winemenubuilder.exe,mshtml=}
}

# Prints the prefix of this very Wine, which another Wine could not use.
prefix() {
    if [ -n "${SOCKPIPE_WINESERVER:-}" ]; then
        printf '%s' "${SOCKPIPE_WINESERVER%/*}/prefix"
    else
        printf '%s' "$CACHE/wine-$("$WINE" --version 2>/dev/null | cksum | cut -d' ' -f1)"
    fi
}

find_wine() {
    for WINE in /usr/lib/wine/wine64 /usr/bin/wine64 /usr/bin/wine; do
        [ ! -x "$WINE" ] || return 0
    done
    return 1
}

make_prefix() {
    say "making the Wine prefix"
    rm -rf "$WINEPREFIX"
    mkdir -p "$WINEPREFIX"
    # Otherwise Wine would start its own server.
    [ -z "${SOCKPIPE_WINESERVER:-}" ] || "$SOCKPIPE_WINESERVER" --persistent=10 9>&-
    "$WINE" wineboot --init </dev/null >/dev/null 2>&1 9>&- || die "Wine did not start"
    # This is the oldest version that Rust supports. By default Wine would be a Windows 7.
    "$WINE" reg add 'HKCU\Software\Wine' /v Version /d win10 /f </dev/null >/dev/null 2>&1 9>&- ||
        die "Wine did not take its Windows version"
    # The server has to end before it can be started again with other options.
    "$(wineserver)" --wait || true
    local system32=$WINEPREFIX/drive_c/windows/system32
    [ -d "$system32" ] || die "Wine made no system32"
    [ -e "$system32/bcryptprimitives.dll" ] || make_bcryptprimitives "$system32"
    : >"$WINEPREFIX/ready"
}

# Rust's standard library takes the seeds of its hash maps from ProcessPrng, which Wine has had only
# since version 9. RtlGenRandom is the same source of random bytes under its older name.
make_bcryptprimitives() { # FOLDER
    need_mingw
    local more=()
    [ -z "${SOCKPIPE_WINESERVER:-}" ] || more=("$here/nt/redirect.c")
    x86_64-w64-mingw32-gcc -O1 -Wall -shared -x c - "${more[@]}" -o "$1/bcryptprimitives.dll" -ladvapi32 <<-'C' ||
		#include <windows.h>
		#include <ntsecapi.h>

		__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *data, SIZE_T left) {
		    const SIZE_T most = 1 << 20;
		    while (left > 0) {
		        ULONG part = (ULONG)(left < most ? left : most);
		        if (!RtlGenRandom(data, part)) {
		            return FALSE;
		        }
		        data += part;
		        left -= part;
		    }
		    return TRUE;
		}
	C
        die "bcryptprimitives.dll did not build"
}

# Wine's services inherit the standard output of the first program that needs them, and outlive it. Here they
# are started without one, and stay while the tests compile. Otherwise a reader of this script's output
# through a pipe would wait for them at the end.
start_services() {
    # A server of our own has to outlive the compilation, or Wine would start its own.
    local seconds=300
    [ -z "${SOCKPIPE_WINESERVER:-}" ] || seconds=7200
    # This fails if a server is already running, which is just as good.
    "$(wineserver)" --persistent=$seconds </dev/null >/dev/null 2>&1 || true
    "$WINE" wineboot </dev/null >/dev/null 2>&1 || die "Wine did not start"
}

wineserver() {
    if [ -n "${SOCKPIPE_WINESERVER:-}" ]; then
        printf '%s\n' "$SOCKPIPE_WINESERVER"
    else
        compgen -G "$(dirname "$WINE")/wineserver*" | tail -n 1
    fi
}

need_mingw() { need_command x86_64-w64-mingw32-gcc gcc-mingw-w64-x86-64; }

prepare_cargo() {
    use_target "$TARGET" build
    # This needs its own folder, because the compiler may differ from the one that fills target/.
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/windows
    export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc
}

prepare_run() {
    need_mingw
    prepare_cargo
    prepare_wine
    # cargo splits this value at spaces, so it can contain the time limit.
    local limit=${SOCKPIPE_WINE_TIMEOUT:-600}
    export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER="timeout --kill-after=10 $limit $WINE"
}

verb=${1:-}
[ $# -eq 0 ] || shift
# `exec` takes its program from the caller's folder. The other verbs work on this crate.
[ "$verb" = exec ] || cd "$here/.."
case $verb in
setup)
    prepare_run
    say "ready: $("${RUSTC:-rustc}" -V), $("$WINE" --version)"
    ;;
test)
    prepare_run
    "${CARGO_CMD[@]}" test --target "$TARGET" "$@"
    ;;
run)
    [ $# -gt 0 ] || die "run which example?"
    example=$1
    shift
    prepare_run
    "${CARGO_CMD[@]}" run --quiet --target "$TARGET" --example "$example" -- "$@"
    ;;
build)
    need_mingw
    prepare_cargo
    "${CARGO_CMD[@]}" build --target "$TARGET" "$@"
    ;;
clippy)
    # Nothing is linked, but MinGW's dlltool makes the import libraries.
    need_mingw
    prepare_cargo
    # After a `--` the caller specifies the lints.
    [[ " $* " == *" -- "* ]] || set -- "$@" -- -D warnings
    "${CLIPPY_CMD[@]}" --target "$TARGET" --all-targets "$@"
    ;;
exec)
    [ $# -gt 0 ] || die "exec which program?"
    prepare_wine
    timeout --kill-after=10 "${SOCKPIPE_WINE_TIMEOUT:-600}" "$WINE" "$@"
    ;;
stop)
    WINE=${SOCKPIPE_WINE:-}
    # Without Wine there is no server, and nothing to end.
    if [ -n "$WINE" ] || find_wine; then
        mkdir -p "$CACHE"
        # The lock keeps this from running while the prefix is being set up.
        flock "$CACHE/wine.lock" env WINEPREFIX="$(prefix)" "$(wineserver)" --kill || true
    fi
    ;;
*)
    # The comment at the top is the help.
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
    ;;
esac

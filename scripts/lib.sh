#!/usr/bin/env bash
# Functions for messages, packages and compilers for other systems. .ci/run and the scripts in this folder
# source it.

# The folder for what is built once and used again: standard libraries, the Wine prefix, an old compiler.
CACHE=${SOCKPIPE_CI_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/sockpipe-ci}

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() {
    say "$*"
    exit 2
}

# Debian's cargo, unlike rustup's, ignores SSL_CERT_FILE.
[ -z "${SSL_CERT_FILE:-}" ] || export CARGO_HTTP_CAINFO=${CARGO_HTTP_CAINFO:-$SSL_CERT_FILE}

# ---- packages ----------------------------------------------------------------

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi
}

# need PACKAGE...: installs the Debian packages that are missing.
need() {
    local missing=() p apt
    for p in "$@"; do
        dpkg-query -W -f '${db:Status-Status}\n' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "this needs ${missing[*]} (Debian's names), and there is no apt-get here"
    as_root true 2>/dev/null || die "not root; as root: apt-get install --no-install-recommends ${missing[*]}"
    # Lanes run beside one another, and two of them that update the lists at once would fail.
    mkdir -p "$CACHE"
    exec {apt}>"$CACHE/apt.lock"
    flock "$apt"
    say "installing ${missing[*]}"
    refresh_lists
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends \
        -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0 -o Acquire::Retries=3 "${missing[@]}" >/dev/null ||
        die "apt-get could not install ${missing[*]}"
    exec {apt}>&-
}

# need_command COMMAND PACKAGE: installs the package unless there is such a command, from any source.
need_command() { command -v "$1" >/dev/null || need "$2"; }

lists_are_fresh=
refresh_lists() {
    [ -z "$lists_are_fresh" ] || return 0
    as_root apt-get update -qq -o Acquire::Retries=3 >&2 || die "apt-get update failed"
    lists_are_fresh=1
}

# ---- compilers ----------------------------------------------------------------

# The distribution's compiler in /usr/bin, with the sources of its standard library.
distribution_rust() {
    # A new machine has no package lists, so apt knows no packages.
    apt-cache show rustc >/dev/null 2>&1 || refresh_lists
    if apt-cache show rustc-web >/dev/null 2>&1; then
        # An older Debian has its up-to-date compiler under this name. Its plain `rustc` is too old for
        # edition 2024.
        need rustc-web cargo-web rust-web-src rust-web-clippy
    else
        need rustc cargo rust-src rust-clippy
    fi
}

# use_target TARGET build|check: prepares a cargo that can build (or only check) for TARGET. Sets the arrays
# CARGO_CMD and CLIPPY_CMD and, if this script built the standard library, the variables that cargo reads.
use_target() {
    local sysroot
    if sysroot=$(rustc --print sysroot 2>/dev/null) && has_std "$sysroot" "$1"; then
        CARGO_CMD=(cargo) CLIPPY_CMD=(cargo clippy)
        return
    fi
    distribution_rust
    make_std /usr/bin "$1" "$2"
    # These are full names, because in ~/.cargo/bin the same names are rustup's. Mixing the metadata of the
    # two compilers fails with confusing errors.
    # shellcheck disable=SC2034 # whoever sourced this uses them
    CARGO_CMD=(/usr/bin/cargo) CLIPPY_CMD=(/usr/bin/cargo-clippy clippy)
    export CARGO=/usr/bin/cargo RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
    use_std
}

has_std() { # SYSROOT TARGET
    compgen -G "$1/lib/rustlib/$2/lib/libstd-*.rlib" >/dev/null
}

# std_folder BIN TARGET build|check: prints where make_std keeps TARGET's standard library for the compiler in
# BIN.
std_folder() {
    local sum
    sum=$("$1/rustc" -vV | cksum | cut -d' ' -f1) || return
    printf '%s' "$CACHE/std-$3-$2-$sum"
}

# make_std BIN TARGET build|check: builds TARGET's standard library for the compiler in BIN, once. Sets STD.
# `check` builds only the metadata, which needs no linker or C compiler for TARGET.
make_std() {
    local bin=$1 target=$2 how=$3 src work kind=rlib
    [ "$how" = build ] || kind=rmeta
    STD=$(std_folder "$bin" "$target" "$how")
    [ ! -d "$STD" ] || return 0
    src=$("$bin/rustc" --print sysroot)/lib/rustlib/src/rust/library
    [ -f "$src/std/src/lib.rs" ] || die "the standard library's sources are not in $src"
    say "making the standard library of $target ($how), once for $("$bin/rustc" -V)"
    mkdir -p "$CACHE"
    work=$(mktemp -d "$CACHE/std.XXXXXX")
    mkdir -p "$work/src" "$work/root/lib/rustlib/$target/lib"
    : >"$work/src/lib.rs"
    cat >"$work/Cargo.toml" <<-'TOML'
		[package]
		name = "nothing"
		edition = "2021"
		[workspace]
		[profile.dev]
		opt-level = 2
		debug = false
		debug-assertions = false
		overflow-checks = false
	TOML
    # Only this build uses unstable features. The crate itself is built as on stable.
    (
        cd "$work"
        unset RUSTFLAGS RUSTDOCFLAGS CARGO_ENCODED_RUSTFLAGS RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER
        RUSTC_BOOTSTRAP=1 RUSTC=$bin/rustc CARGO_TARGET_DIR=$work/target \
            "$bin/cargo" "$how" -q -Z build-std=std,panic_abort,panic_unwind,proc_macro,test --target "$target"
    ) >&2 || die "the standard library of $target did not build"
    find "$work/target/$target/debug/deps" -name "*.$kind" ! -name 'libnothing-*' \
        -exec mv -t "$work/root/lib/rustlib/$target/lib" {} +
    # A single rename, so that the folder exists only when it is complete. If another process was faster, its
    # folder stays.
    mv -T "$work/root" "$STD" 2>/dev/null || [ -d "$STD" ]
    rm -rf "$work"
}

# Makes cargo build with $STD, and keeps the caller's own flags. The encoded form allows spaces in paths.
use_std() {
    local flags docflags
    read -ra flags <<<"${RUSTFLAGS:-}"
    read -ra docflags <<<"${RUSTDOCFLAGS:-}"
    CARGO_ENCODED_RUSTFLAGS=$(encode "${flags[@]}" "--sysroot=$STD")
    CARGO_ENCODED_RUSTDOCFLAGS=$(encode "${docflags[@]}" "--sysroot=$STD")
    export CARGO_ENCODED_RUSTFLAGS CARGO_ENCODED_RUSTDOCFLAGS
}

encode() {
    local IFS=$'\x1f'
    printf '%s' "$*"
}

# ---- the oldest compiler --------------------------------------------------------

# The oldest Rust that the crate supports.
oldest_rust() { sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml; }

# debian_version RUST: prints the version of Debian's package that has this Rust, or nothing.
debian_version() {
    command -v apt-cache >/dev/null || return 0
    apt-cache show rustc >/dev/null 2>&1 || refresh_lists
    apt-cache madison rustc-web | awk -v v="$1." '!found && index($3, v) == 1 { print $3; found = 1 }'
}

# unpack_debian RUST PACKAGE_VERSION: unpacks that compiler under $CACHE, beside any newer one of the machine.
# Sets BIN, and what cargo reads from the environment.
unpack_debian() {
    local root=$CACHE/rust-$2 work libraries
    # The programs and their libraries are unpacked and not installed, because only one version can be
    # installed.
    local packages=("rustc-web=$2" "cargo-web=$2" "libstd-rust-web-$1=$2" "libstd-rust-web-dev=$2" "rust-web-src=$2")
    # The libraries that they need from other packages.
    mapfile -t libraries < <(apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances "${packages[@]}" | awk '$1 == "Depends:" && $2 ~ /^(lib|zlib)/ && $2 !~ /rust/ { print $2 }' | sort -u)
    need gcc libc6-dev "${libraries[@]}"
    BIN=$root/usr/bin
    if [ ! -d "$root" ]; then
        say "unpacking Debian's Rust $2"
        mkdir -p "$CACHE"
        work=$(mktemp -d "$CACHE/rust.XXXXXX")
        (
            cd "$work"
            # apt's own user cannot write here.
            apt-get download -qq -o Acquire::Retries=3 -o APT::Sandbox::User="$(id -un)" "${packages[@]}"
            for p in *.deb; do dpkg-deb -x "$p" root; done
        ) || die "could not unpack Debian's Rust $2"
        mv -T "$work/root" "$root" 2>/dev/null || [ -d "$root" ]
        rm -rf "$work"
    fi
    # The compiler's own library is beside the system's, where the loader does not look for it.
    LD_LIBRARY_PATH=$(dirname "$(compgen -G "$root/usr/lib/*/librustc_driver-*.so")")
    export LD_LIBRARY_PATH CARGO=$BIN/cargo RUSTC=$BIN/rustc RUSTDOC=$BIN/rustdoc
}

# unpack_std PACKAGE_VERSION ARCHITECTURE TARGET: puts that package's standard library for another of Debian's
# architectures beside the unpacked compiler's own.
unpack_std() {
    local root=$CACHE/rust-$1/usr work
    ! has_std "$root" "$3" || return 0
    say "unpacking the standard library of $3 for Debian's Rust $1"
    work=$(mktemp -d "$CACHE/std.XXXXXX")
    (
        cd "$work"
        mkdir -p lists/partial cache/archives/partial
        # Lists of their own: the machine's know its own architecture.
        local options=(-qq -o APT::Architecture="$2" -o APT::Architectures="$2" -o Dir::State::Lists="$work/lists"
            -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" -o Acquire::Languages=none
            -o Acquire::Retries=3)
        # A source that lacks the architecture fails here; if it is Debian's own, the next command says so.
        apt-get "${options[@]}" update || true
        apt-get "${options[@]}" download "libstd-rust-web-dev:$2=$1"
        dpkg-deb -x libstd-rust-web-dev_*.deb root
    ) >&2 || die "could not unpack the standard library of $3"
    # One rename, so that the folder is there only when it is whole.
    mv -T "$work/root/usr/lib/rustlib/$3" "$root/lib/rustlib/$3" 2>/dev/null || has_std "$root" "$3" ||
        die "Debian's package for $2 has no standard library of $3"
    rm -rf "$work"
}

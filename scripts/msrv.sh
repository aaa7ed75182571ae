#!/usr/bin/env bash
# Checks the crate with the oldest Rust that it supports (rust-version in Cargo.toml).
#
#   scripts/msrv.sh
#
# It uses rustup's compiler if that is installed. Otherwise it uses Debian's, if the distribution has this
# version, and unpacks it under $SOCKPIPE_CI_CACHE (default ~/.cache/sockpipe-ci), beside any newer one of the
# machine. Debian's compiler comes with the sources of the standard library, so the Windows side is checked as
# well. Otherwise rustup installs the compiler.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

version=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
[ -n "$version" ] || die "Cargo.toml has no rust-version"
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/msrv
# The -gnu target would need a dlltool even for a check.
WINDOWS=x86_64-pc-windows-msvc

check() { # CARGO...
    "$@" check --locked --all-targets
    # The backend of macOS and the BSDs, and the crate without its async API.
    RUSTFLAGS="--cfg sockpipe_posix" "$@" check --locked --all-targets --target-dir "$CARGO_TARGET_DIR/posix"
    "$@" check --locked --lib --no-default-features --features blocking
    "$@" check --locked -p sockpipe-cli --all-targets
}

# Prints the version of Debian's package that has this Rust, or nothing.
debian_version() {
    command -v apt-cache >/dev/null || return 0
    apt-cache show rustc >/dev/null 2>&1 || refresh_lists
    apt-cache madison rustc-web | awk -v v="$version." '!found && index($3, v) == 1 { print $3; found = 1 }'
}

# unpack_debian PACKAGE_VERSION: sets BIN.
unpack_debian() {
    local root=$CACHE/rust-$1 work libraries
    # The programs and their libraries are unpacked and not installed, because only one version can be
    # installed.
    local packages=("rustc-web=$1" "cargo-web=$1" "libstd-rust-web-$version=$1" "libstd-rust-web-dev=$1" "rust-web-src=$1")
    # The libraries that they need from other packages.
    mapfile -t libraries < <(apt-cache depends --no-recommends --no-suggests --no-conflicts --no-breaks \
        --no-replaces --no-enhances "${packages[@]}" | awk '$1 == "Depends:" && $2 ~ /^(lib|zlib)/ && $2 !~ /rust/ { print $2 }' | sort -u)
    need gcc libc6-dev "${libraries[@]}"
    BIN=$root/usr/bin
    if [ ! -d "$root" ]; then
        say "unpacking Debian's Rust $1"
        mkdir -p "$CACHE"
        work=$(mktemp -d "$CACHE/rust.XXXXXX")
        (
            cd "$work"
            # apt's own user cannot write here.
            apt-get download -qq -o Acquire::Retries=3 -o APT::Sandbox::User="$(id -un)" "${packages[@]}"
            for p in *.deb; do dpkg-deb -x "$p" root; done
        ) || die "could not unpack Debian's Rust $1"
        mv -T "$work/root" "$root" 2>/dev/null || [ -d "$root" ]
        rm -rf "$work"
    fi
    # The compiler's own library is beside the system's, where the loader does not look for it.
    LD_LIBRARY_PATH=$(dirname "$(compgen -G "$root/usr/lib/*/librustc_driver-*.so")")
    export LD_LIBRARY_PATH CARGO=$BIN/cargo RUSTC=$BIN/rustc RUSTDOC=$BIN/rustdoc
}

in_rustup() { rustup run "$version" rustc -V >/dev/null 2>&1; }

if ! in_rustup && debian=$(debian_version) && [ -n "$debian" ]; then
    unpack_debian "$debian"
    say "$("$BIN/rustc" -V)"
    case $("$BIN/rustc" -V) in "rustc $version."*) ;; *) die "this is not Rust $version" ;; esac
    check "$BIN/cargo"
    make_std "$BIN" "$WINDOWS" check
    use_std
    "$BIN/cargo" check --locked --all-targets --target "$WINDOWS"
else
    in_rustup || rustup toolchain install "$version" --profile minimal ||
        die "there is no Rust $version to be had: not installed, not in the distribution, not from rustup"
    say "$(rustup run "$version" rustc -V)"
    check rustup run "$version" cargo
fi

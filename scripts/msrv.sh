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

version=$(oldest_rust)
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

in_rustup() { rustup run "$version" rustc -V >/dev/null 2>&1; }

if ! in_rustup && debian=$(debian_version "$version") && [ -n "$debian" ]; then
    unpack_debian "$version" "$debian"
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

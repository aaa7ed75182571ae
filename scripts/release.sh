#!/usr/bin/env bash
# Builds the release of the tool for one target: an archive with the program, manual pages, completions and
# licences, and a checksum. It publishes nothing.
#
#   scripts/release.sh TARGET [FOLDER]     into FOLDER (default target/release-archives)
#
# The caller has to install the target's standard library (`rustup target add TARGET`) and a linker for it
# (musl-tools for musl). The program writes the completions itself, or one for this machine if it does not run here.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

target=${1:?"usage: scripts/release.sh TARGET [FOLDER]"}
folder=${2:-${CARGO_TARGET_DIR:-target}/release-archives}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' cli/Cargo.toml | head -n 1)
name=sockpipe-$version-$target

program=sockpipe
case $target in
*-windows-*) program=sockpipe.exe ;;
esac

cargo build --locked --release --package sockpipe-cli --target "$target"
built=${CARGO_TARGET_DIR:-target}/$target/release/$program
[ -f "$built" ] || die "there is no $built"

mkdir -p "$folder"
folder=$(realpath "$folder")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/$name"
cp "$built" README.md CHANGELOG.md LICENSE-MIT LICENSE-APACHE "$work/$name"
cp -r cli/man "$work/$name"

writer=$built
if ! "$built" --version >/dev/null 2>&1; then
    host=$(rustc -vV | sed -n 's/^host: //p')
    [ "${target%%-*}" != "${host%%-*}" ] || die "$built does not run"
    say "the program does not run here, so one for this machine writes the completions"
    cargo build --locked --release --package sockpipe-cli --target "$host"
    writer=${CARGO_TARGET_DIR:-target}/$host/release/sockpipe
fi
mkdir "$work/$name/completions"
for shell in bash elvish fish powershell zsh; do
    "$writer" completions "$shell" >"$work/$name/completions/sockpipe.$shell"
done

# One format that every system unpacks: Windows has tar since 2018.
tar -C "$work" --owner=0 --group=0 --numeric-owner --sort=name -czf "$folder/$name.tar.gz" "$name" 2>/dev/null ||
    tar -C "$work" -czf "$folder/$name.tar.gz" "$name"
sum() { if command -v sha256sum >/dev/null; then sha256sum "$@"; else shasum -a 256 "$@"; fi; }
(cd "$folder" && sum "$name.tar.gz" >"$name.tar.gz.sha256")
say "$folder/$name.tar.gz"

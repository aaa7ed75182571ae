#!/usr/bin/env bash
# Makes the package that users get, unpacks it outside the repository, and builds and tests it there.
#
#   scripts/package.sh test      builds it, and runs its tests of the contract, the examples and the documents
#   scripts/package.sh minimal   builds it with the oldest versions of its direct dependencies
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

verb=${1:-test}
target=$(realpath -m "${CARGO_TARGET_DIR:-target}")
version=$(cargo metadata --locked --no-deps --format-version 1 |
    sed -E 's/.*"name":"sockpipe","version":"([^"]*)".*/\1/')
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The package contains changes that are not committed yet, so that they can be tested first.
cargo package --locked --allow-dirty --no-verify --package sockpipe --target-dir "$target/package"
tar xf "$target/package/package/sockpipe-$version.crate" -C "$work"
cd "$work/sockpipe-$version"

# The package must not contain files that only this repository needs, or folders of other packages.
for unwanted in target cli testing torture fuzz bench examples/frameworks .ci .github docs/coverage.md docs/kernels.md; do
    [ ! -e "$unwanted" ] || die "the package has $unwanted in it"
done
for wanted in README.md CHANGELOG.md SECURITY.md PLATFORM.md LICENSE-MIT LICENSE-APACHE src docs examples tests; do
    [ -e "$wanted" ] || die "the package has no $wanted"
done
say "$(find . -type f | wc -l) files, $(du -sk . | cut -f1) KiB"

export CARGO_TARGET_DIR=$target/package/$verb
case $verb in
test)
    # Otherwise cargo would take the tests of an earlier run for these. They would look for their files where
    # that run had them.
    cargo clean --quiet --locked --package sockpipe
    cargo build --locked --examples
    cargo test --locked --lib --test contract --test echo --test endpoint --test documents
    cargo test --locked --doc
    ;;
minimal)
    # cargo accepts this option only if unstable ones are allowed. The crate is built as always.
    RUSTC_BOOTSTRAP=1 cargo update --quiet -Z direct-minimal-versions
    cargo check --locked --lib
    cargo check --locked --lib --no-default-features --features blocking,serde,tracing
    cargo check --locked --lib --all-features
    ;;
*)
    die "test or minimal?"
    ;;
esac

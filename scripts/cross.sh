#!/usr/bin/env bash
# Lints the crate for systems that this machine cannot run. Warnings are errors. It links nothing, so it needs
# no SDK and no linker of these systems.
#
#   scripts/cross.sh [-t TARGET]... [CARGO ARGUMENTS]
#
# Without -t: macOS, iOS, FreeBSD, NetBSD, OpenBSD, Android and Windows with MSVC.
# It uses a target that rustup has installed. For any other target it builds the metadata of the standard
# library from Debian's sources, once per compiler, under $SOCKPIPE_CI_CACHE (default ~/.cache/sockpipe-ci).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

targets=()
while [ "${1:-}" = -t ]; do
    targets+=("${2:?-t needs a target}")
    shift 2
done
[ ${#targets[@]} -gt 0 ] || targets=(
    aarch64-apple-darwin aarch64-apple-ios x86_64-unknown-freebsd x86_64-unknown-netbsd x86_64-unknown-openbsd
    aarch64-linux-android x86_64-pc-windows-msvc
)

# This needs its own folder, because the compiler may differ from the one that fills target/.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/cross
failed=()
for target in "${targets[@]}"; do
    say "$target"
    # In a subshell, as the environment differs from target to target.
    code=0
    (
        use_target "$target" check
        # On systems whose loader has no thread-locals, clippy takes a const one for one that is not const.
        "${CLIPPY_CMD[@]}" --target "$target" --all-targets "$@" -- -D warnings \
            -A clippy::missing-const-for-thread-local
    ) || code=$?
    [ "$code" = 0 ] || failed+=("$target")
done
[ ${#failed[@]} -eq 0 ] || die "failed: ${failed[*]}"

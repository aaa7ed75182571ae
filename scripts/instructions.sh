#!/usr/bin/env bash
# How many instructions a round of reads and writes takes, by tokio's own streams and by sockpipe's, with
# busy-polling off: what a profile by time cannot show on a busy machine. A round is that of
# tests/helper/talk.rs: four small messages and a sixteenth of a large block, written and read.
#
#   scripts/instructions.sh
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_command valgrind valgrind
cargo build --quiet --release --example test_helper
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The helper ends when its standard input does, and this one has no end.
mkfifo "$work/open"
exec 3<>"$work/open"

instructions() { # WHOSE COUNT
    valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        "${CARGO_TARGET_DIR:-target}/release/examples/test_helper" bytes "$1" "$work/$1-$2" "$2" \
        <"$work/open" 2>&1 >/dev/null |
        awk '/Collected/ { print $4 }'
}

for whose in tokio sockpipe; do
    few=$(instructions $whose 160)
    many=$(instructions $whose 480)
    printf '%s: %d instructions a round\n' "$whose" $(((many - few) / 320))
done

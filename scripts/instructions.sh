#!/usr/bin/env bash
# Counts the instructions of a round of reads and writes, over tokio's own streams and over sockpipe's without
# busy-polling, and over the blocking streams of the standard library and of sockpipe. On a busy machine a
# profile by time cannot show such differences. tests/helper/talk.rs defines the round: it writes and reads four
# small messages and a sixteenth of a large block.
#
#   scripts/instructions.sh
#
# The exit code is 1 if sockpipe takes more than 1.03 times as many, and otherwise 0.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_command valgrind valgrind
cargo build --quiet --release --features blocking --example test_helper
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# The helper ends when its standard input ends, so it gets one that does not end.
mkfifo "$work/open"
exec 3<>"$work/open"

instructions() { # WHOSE COUNT
    valgrind --tool=callgrind --callgrind-out-file=/dev/null \
        "${CARGO_TARGET_DIR:-target}/release/examples/test_helper" bytes "$1" "$work/$1-$2" "$2" \
        <"$work/open" 2>&1 >/dev/null |
        awk '/Collected/ { print $4 }'
}

round() { # WHOSE
    local few many
    few=$(instructions "$1" 160)
    many=$(instructions "$1" 480)
    echo $(((many - few) / 320))
}

missed=0
compare() { # OTHER OURS
    local other ours
    other=$(round "$1")
    ours=$(round "$2")
    awk -v other="$other" -v ours="$ours" -v names="$1 $2" 'BEGIN {
        split(names, name)
        printf "%s: %d instructions a round, %s: %d, ratio %.3f\n", name[1], other, name[2], ours, ours / other
        exit ours > other * 1.03
    }' || missed=1
}
compare tokio sockpipe
compare std blocking
exit $missed

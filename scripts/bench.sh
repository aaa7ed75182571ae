#!/usr/bin/env bash
# What sockpipe costs beside raw sockets and others: the workloads of bench/ between two processes.
#
#   scripts/bench.sh full      11 repetitions of everything, about 25 minutes, pipes by Wine included where
#                              that is there; into docs/performance.md
#   scripts/bench.sh reduced   3 shorter ones, about 4 minutes; into docs/performance.md too
#   scripts/bench.sh memory [ARGUMENTS] 11 repetitions of what shared memory has bars for, beside iceoryx2,
#                              which is built for it; about 7 minutes; prints
#   scripts/bench.sh table [ARGUMENTS]  only prints; see bench/src/main.rs
#   scripts/bench.sh charts    draws the tables that docs/performance.md has into docs/charts/, as full and reduced do
#   scripts/bench.sh smoke     does everything run, and is nothing grossly slow
#   scripts/bench.sh windows [full]     named pipes, under Wine; prints
#
# Go, Node.js and ZeroMQ (golang-go, nodejs, libzmq5 on Debian) take part where they are installed. The
# numbers mean something on a machine that does nothing else: look at the row called noise.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
page=docs/performance.md

build() { # cargo's further options
    cargo build --quiet --release --locked --manifest-path bench/Cargo.toml "$@"
    program=${CARGO_TARGET_DIR:-bench/target}/release/sockpipe-bench
}

# between the marks of that name in the page
insert() { # NAME FILE
    awk -v file="$2" -v begin="<!-- $1: begin -->" -v end="<!-- $1: end -->" '
        $0 == end { skip = 0 }
        !skip { print }
        $0 == begin { skip = 1; print ""; while ((getline line < file) > 0) print line }
    ' "$page" >"$2.page"
    cat "$2.page" >"$page"
}

pipes() { # table's arguments
    trap 'scripts/windows.sh stop; rm -rf "${work:-}"' EXIT
    scripts/windows.sh build --quiet --release --locked --manifest-path bench/Cargo.toml
    scripts/windows.sh exec \
        "${CARGO_TARGET_DIR:-target}/windows/x86_64-pc-windows-gnu/release/sockpipe-bench.exe" table "$@"
}

verb=${1:-}
[ $# -eq 0 ] || shift
case $verb in
full | reduced)
    build
    scripts/windows.sh stop
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$program" table "$verb" >"$work/table"
    insert measured "$work/table"
    cat "$work/table"
    # By Wine where it is there already.
    if command -v x86_64-w64-mingw32-gcc >/dev/null && compgen -G "$CACHE/wine-*/ready" >/dev/null; then
        pipes "$verb" >"$work/pipes"
        insert pipes "$work/pipes"
        cat "$work/pipes"
    fi
    "$program" charts "$page" docs/charts
    ;;
charts)
    build
    "$program" charts "$page" docs/charts
    ;;
memory)
    build --features iceoryx2
    "$program" table full --memory "$@"
    ;;
table | smoke)
    build
    "$program" "$verb" "$@"
    ;;
windows)
    pipes "${1:-reduced}"
    ;;
*)
    # The comment at the top is the help.
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
    ;;
esac

#!/usr/bin/env bash
# Measures what sockpipe costs compared with raw sockets and with other crates, by the workloads of bench/
# between two processes.
#
#   scripts/bench.sh full      runs everything 11 times, and pipes under Wine if that is installed, in about
#                              26 minutes; builds iceoryx2, and writes docs/performance.md
#   scripts/bench.sh reduced   does so 3 times each for a shorter time, in about 4 minutes
#   scripts/bench.sh memory [ARGUMENTS] runs only the groups with bars for shared memory, 11 times, in about
#                              18 minutes; builds iceoryx2, and prints only
#   scripts/bench.sh table [ARGUMENTS]  runs what the arguments select, see bench/src/main.rs; prints only
#   scripts/bench.sh charts    draws the tables of docs/performance.md into docs/charts/; full and reduced
#                              do so as well
#   scripts/bench.sh smoke     checks that everything runs, and that nothing is grossly slow
#   scripts/bench.sh windows [full]     runs named pipes under Wine; prints only
#
# Go, Node.js and ZeroMQ (golang-go, nodejs, libzmq5 on Debian) take part if they are installed. The numbers
# mean something only on an idle machine: look at the row called noise.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
page=docs/performance.md

build() { # cargo's further options
    cargo build --quiet --release --locked --manifest-path bench/Cargo.toml "$@"
    program=${CARGO_TARGET_DIR:-bench/target}/release/sockpipe-bench
}

# Inserts a file between the marks of that name in the page.
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
    build --features iceoryx2
    scripts/windows.sh stop
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$program" table "$verb" >"$work/table"
    insert measured "$work/table"
    cat "$work/table"
    # Measures pipes under Wine if that is already installed.
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

#!/usr/bin/env bash
# What a program takes on with this crate, and with two others of its kind: how many crates it gets,
# that one included, and what a clean debug build of them costs. In one run, one after another and again, so that all meet
# the same machine.
#
#   scripts/dependencies.sh [ROUNDS]    default 3
#   scripts/dependencies.sh tree        the blocking-only tree; fails when tokio is in it
#
# The seconds are of CPU time, user and system, which other load disturbs less than the clock; the median
# of the rounds, and how they compare with ours. It downloads the two others from the registry.
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$here/scripts/lib.sh"

if [ "${1:-}" = tree ]; then
    cd "$here"
    for target in x86_64-unknown-linux-gnu x86_64-apple-darwin x86_64-pc-windows-msvc; do
        tree=$(cargo tree --locked --edges normal --no-default-features --features blocking --target "$target")
        printf '%s:\n%s\n' "$target" "$tree"
        ! grep -Eq '(^|[^a-z-])(tokio|mio) ' <<<"$tree" || die "there is tokio in the blocking-only build"
    done
    exit
fi

rounds=${1:-3}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
unset CARGO_TARGET_DIR CARGO_BUILD_TARGET RUSTFLAGS
export CARGO_INCREMENTAL=0

names=(sockpipe sockpipe-blocking interprocess interprocess-tokio tipsy)
declare -A title=(
    [sockpipe]="sockpipe, default features"
    [sockpipe-blocking]='sockpipe, \`blocking\` alone'
    [interprocess]="interprocess, default features"
    [interprocess-tokio]='interprocess, \`tokio\`'
    [tipsy]="tipsy"
)
declare -A wanted=(
    [sockpipe]="sockpipe = { path = \"$here\" }"
    [sockpipe-blocking]="sockpipe = { path = \"$here\", default-features = false, features = [\"blocking\"] }"
    [interprocess]='interprocess = "2"'
    [interprocess-tokio]='interprocess = { version = "2", features = ["tokio"] }'
    [tipsy]='tipsy = "0.7"'
)

for name in "${names[@]}"; do
    mkdir -p "$work/$name/src"
    echo 'fn main() {}' >"$work/$name/src/main.rs"
    printf '[package]\nname = "scratch"\nversion = "0.0.0"\nedition = "2024"\n[dependencies]\n%s\n[workspace]\n' \
        "${wanted[$name]}" >"$work/$name/Cargo.toml"
    (cd "$work/$name" && cargo fetch --quiet)
done

declare -A seconds crates version
for name in "${names[@]}"; do
    listed=$(cd "$work/$name" && cargo tree --quiet --edges normal,build --prefix none --no-dedupe |
        sed 's/ (.*//' | sort -u)
    crates[$name]=$(($(wc -l <<<"$listed") - 1))
    version[$name]=$(sed -n "s/^${name%%-*} v//p" <<<"$listed")
done
# User and system time of what this runs, added up.
cpu_seconds() { # COMMAND...
    bash -c '"$@" >&2 && times' time "$@" | awk 'NR == 2 { gsub(/[ms]/, " "); print $1 * 60 + $2 + $3 * 60 + $4 }'
}

for ((round = 1; round <= rounds; round++)); do
    for name in "${names[@]}"; do
        rm -rf "$work/$name/target"
        seconds[$name]+="$(cpu_seconds cargo build --quiet --offline --manifest-path "$work/$name/Cargo.toml") "
        say "round $round: $name ${seconds[$name]}"
    done
done

median() { tr ' ' '\n' | sed '/^$/d' | sort -n | awk '{ v[NR] = $1 } END { printf "%.1f", NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }
ours=$(median <<<"${seconds[sockpipe]}")
rustc --version
echo "| | version | crates | clean build, CPU seconds | against our default |"
echo "|---|---|---|---|---|"
for name in "${names[@]}"; do
    took=$(median <<<"${seconds[$name]}")
    ratio=$(awk -v a="$took" -v b="$ours" 'BEGIN { printf "%.2f", a / b }')
    echo "| ${title[$name]} | ${version[$name]} | ${crates[$name]} | $took | $ratio |" | tr -d '\\'
done

#!/usr/bin/env bash
# Measures what a program gets with this crate, and with two similar ones: the number of crates, including that
# one, and the cost of a clean debug build. The crates are built in turns within one run, so that the machine's
# load affects all of them.
#
#   scripts/dependencies.sh [ROUNDS]    default 3
#   scripts/dependencies.sh tree        the blocking-only tree; fails when tokio is in it
#
# It prints the CPU time in seconds, user and system together, as the median of the rounds, and its ratio to
# ours. Other load disturbs CPU time less than elapsed time. It downloads the two other crates from the
# registry.
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
# Prints the user and system time of a command, added up.
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

#!/usr/bin/env bash
# Compares the tool's relay with socat and with a direct connection, all in one run.
#
#   scripts/relay-bench.sh [MIB]   prints the table, with transfers of MIB of bulk data (default 1024)
#   scripts/relay-bench.sh write   writes the table into docs/tool.md, with 4096 MiB
#
# The ratios count, because the figures depend on the machine. It fails if a ratio is below its bar.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

need_command socat socat
need_command python3 python3
[ -n "${SOCKPIPE:-}" ] || cargo build --quiet --release --locked -p sockpipe-cli
export SOCKPIPE=${SOCKPIPE:-${CARGO_TARGET_DIR:-target}/release/sockpipe}

if [ "${1:-}" != write ]; then
    exec python3 scripts/relay_bench.py "${1:-1024}"
fi
table=$(mktemp)
trap 'rm -f "$table" "$table.page"' EXIT
code=0
python3 scripts/relay_bench.py 4096 >"$table" || code=$?
awk -v file="$table" '
    $0 == "<!-- relay: end -->" { skip = 0 }
    !skip { print }
    $0 == "<!-- relay: begin -->" { skip = 1; print ""; while ((getline line < file) > 0) print line }
' docs/tool.md >"$table.page"
cat "$table.page" >docs/tool.md
exit $code

#!/usr/bin/env bash
# Finds words that a reader has to read twice, in the documents, in rustdoc, in messages and in comments.
#
#   scripts/prose.sh          prints each finding, and the counts; exit code 1 if a count is over its limit
#   scripts/prose.sh count    prints the counts alone
#
# The lists beside `prose/prose.py` hold the banned phrases, the verbs that may begin a summary, and the words
# that the dictionary does not know.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

need_command python3 python3
need aspell aspell-en

# JSON is unstable, and the summaries of all features are in it; the crate itself is built as on stable.
target=${CARGO_TARGET_DIR:-target}
RUSTC_BOOTSTRAP=1 cargo rustdoc --quiet --locked --lib --all-features -- \
    -Z unstable-options --output-format json
python3 scripts/prose/prose.py "$target/doc/sockpipe.json" "${1:-}"

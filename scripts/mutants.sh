#!/usr/bin/env bash
# Finds changes of the code that no test notices:
#
#   scripts/mutants.sh [GROUP...]       changes the files of these groups in one place at a time, and tests
#                                       each change
#   scripts/mutants.sh rows [GROUP...]  prints the table's rows for all mutants that were tested so far
#
# It works on the last commit, in its own work tree, so commit first. A group is a line of `groups` below.
# Without a group it runs all of them, which takes a night. A mutant takes 15 to 60 seconds.
# SOCKPIPE_SHARD=0/8 runs the first eighth of each group, and SOCKPIPE_ONLY=REGEX runs the mutants whose line in
# the list matches. It keeps the outcomes in target/mutants/outcomes, even if the run is interrupted; the last
# outcome of a mutant counts. It fails if cargo-mutants lists no mutant of a file, because then a macro hides the
# module or the file has moved.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
VERSION=27.1.0

# GROUP | FILES | test programs | test programs that run if the first ones do not notice the mutant. Wine runs
# the tests of files in src/windows.
groups() {
    local name='--test unix_lost_name --test unix_name --test unix_release --test occupancy'
    local more='--lib --test unix_claim --test unix_bind_faults --test unix_places --test unix_untouched
        --test unix_access --test unix_upgrade --test unix_inherited --test errors --test users'
    sed 's/^\t*//' <<-TABLE
		endpoint|src/endpoint.rs src/endpoint/[!t]*.rs|--lib --test endpoint|--test errors
		lock|src/unix/lock.rs|$name|${more//$'\n'/ }
		claim|src/unix/claim.rs|$name|${more//$'\n'/ }
		name|src/unix/name.rs|$name|${more//$'\n'/ }
		note|src/unix/note.rs|--lib|$name --test unix_claim --test serve
		place|src/unix/place.rs|$name|${more//$'\n'/ }
		ring|src/shared_memory/ring.rs|--lib|--test unix_shared_memory
		bells|src/unix/shared_memory.rs|--lib|--test unix_shared_memory
		listener|src/listener.rs src/listener/*.rs|--lib|--test contract --test unix_accept --test serve --test unix_release
		stream|src/stream.rs src/stream/*.rs|--test contract|--lib --test echo --test unix_ancillary
		blocking|src/blocking/*.rs|--test blocking -- --skip examples::|--test contract --test hand_over
		serve|src/serve.rs src/serve/[!t]*.rs|--lib --test serve|--test load --test echo --test unix_upgrade -- --skip thousands_of
		instance|src/instance/*.rs|--test daemon --test hand_over|--test unix_daemon --test errors
		memory|src/memory.rs src/memory/*.rs|--lib --test contract|--test serve
		pipes|src/windows/arming.rs src/windows/end.rs|--lib -- windows::arming windows::end|
	TABLE
}

# cargo-mutants runs this in place of cargo. Its build also builds the programs that the tests run, so that
# they contain the mutant. Its test has two parts: the slower programs run only if the first ones notice
# nothing.
as_cargo() {
    unset CARGO
    [ "$1" = test ] || exec cargo "$@"
    # This is the script of the work tree, which has the mutant.
    local test=(cargo test) options=(--quiet --locked --features "blocking,serde,shared-memory,axum") first next
    [ -z "$SOCKPIPE_MUTANTS_WINE" ] || test=(scripts/windows.sh test)
    read -ra first <<<"$SOCKPIPE_MUTANTS_FIRST"
    read -ra next <<<"$SOCKPIPE_MUTANTS_NEXT"
    # Limits a mutant that would fill memory or disk, to 12 and 2 GiB. Under Wine, its services would inherit
    # the limits.
    [ -n "$SOCKPIPE_MUTANTS_WINE" ] || ulimit -v $((12 << 20)) -f $((2 << 20))
    if [[ " $* " = *" --no-run "* ]]; then
        "${test[@]}" --no-run "${options[@]}" "${first[@]}"
        [[ ${first[*]} != *--test* ]] || build_programs
    else
        "${test[@]}" "${options[@]}" "${first[@]}" | until_one_fails
        [ ${#next[@]} -gt 0 ] || return 0
        build_programs
        "${test[@]}" "${options[@]}" "${next[@]}" | until_one_fails
    fi
}

# One failure is enough: each of the other tests may wait for something that the mutant never does.
until_one_fails() {
    local line
    while IFS= read -r line; do
        printf '%s\n' "$line"
        [[ $line != *' --- FAILED' ]] || kill_programs
    done
}

# Kills the programs of the tests, and the programs that they started.
kill_programs() {
    local exe
    for exe in /proc/[0-9]*/exe; do
        case $(readlink "$exe" || true) in
            "$CARGO_TARGET_DIR"/debug/*) kill -KILL "$(cut -d/ -f3 <<<"$exe")" 2>/dev/null || true ;;
        esac
    done
}

build_programs() {
    cargo build "${options[@]}" --example test_helper --example echo_server --example echo_client \
        --example echo --example single_instance
}

if [ -n "${SOCKPIPE_MUTANTS_FIRST:-}" ]; then
    as_cargo "$@"
    exit
fi

cd "$here/.."
outcomes=$PWD/target/mutants/outcomes tree=$PWD/target/mutants/tree
commit=$(git rev-parse --short HEAD)
mutants=$(command -v cargo-mutants || true)
[ -n "$mutants" ] && [ "$("$mutants" mutants --version)" = "cargo-mutants $VERSION" ] ||
    die "this needs cargo install cargo-mutants --version $VERSION --locked"

all=$("$mutants" mutants --dir "$PWD" --list --colors never)

# list FILE: prints its mutants, one a line.
list() { grep "^$1:" <<<"$all" || die "cargo-mutants lists no mutant of $1"; }

# FILE | mutants | caught | unviable | missed | not run
rows() {
    local file
    for file in $1; do
        list "$file" | awk -F '\t' -v file="${file#src/}" -v log_="$outcomes" '
            BEGIN { while ((getline <log_) > 0) last[$3] = $2 }
            { n[last[$1] ? last[$1] : "left"]++ }
            END { printf "| `%s` | %d | %d | %d | %d | %d |\n", file, NR, n["caught"] + n["timeout"], n["unviable"],
                n["missed"], n["left"] }'
    done
}

# Checks out the commit, whatever an interrupted run left there.
prepare_tree() {
    mkdir -p "${tree%/*}"
    git worktree prune
    [ -d "$tree" ] || git worktree add --quiet --detach "$tree" HEAD
    git -C "$tree" checkout --quiet --force --detach "$commit"
}

# run FILES FIRST NEXT
run() {
    local file passed status=0 given=()
    for file in $1; do
        given+=(--file "$file")
    done
    # The tests have to pass without a mutant, once for each commit.
    export SOCKPIPE_MUTANTS_FIRST=$2 SOCKPIPE_MUTANTS_NEXT=$3 SOCKPIPE_MUTANTS_WINE='' CARGO=$here/mutants.sh
    [[ $1 != src/windows/* ]] || SOCKPIPE_MUTANTS_WINE=1
    passed=$work/passed-$commit-$(cksum <<<"$2$3" | cut -d' ' -f1)
    [ -e "$passed" ] || (cd "$tree" && "$CARGO" test) || die "without a mutant the tests fail"
    : >"$passed"
    (
        cd "$tree"
        "$mutants" mutants --in-place --baseline skip --no-shuffle --colors never --output "$work" --timeout 180 \
            --build-timeout 180 ${SOCKPIPE_SHARD:+--shard "$SOCKPIPE_SHARD" --sharding round-robin} \
            ${SOCKPIPE_ONLY:+--re "$SOCKPIPE_ONLY"} "${given[@]}"
    ) || status=$?
    for file in caught timeout unviable missed; do
        awk -v OFS='\t' -v commit="$commit" -v outcome=$file '{ print commit, outcome, $0 }' "$work/mutants.out/$file.txt"
    done >>"$outcomes"
    # 2: some were missed; 3: some took too long.
    case $status in 0 | 2 | 3) ;; *) die "cargo-mutants ended with $status" ;; esac
}

only_rows=
[ "${1:-}" != rows ] || { only_rows=1; shift; }
wanted=${*:-$(groups | cut -d'|' -f1)}
declare -A files_of
for group in $wanted; do
    line=$(groups | grep "^$group|") || die "no group $group; there are $(groups | cut -d'|' -f1 | xargs)"
    # shellcheck disable=SC2046 # the patterns are to be expanded
    files_of[$group]=$(printf '%s ' $(cut -d'|' -f2 <<<"$line"))
    # Fails before anything is run, and not in the middle of a night.
    for file in ${files_of[$group]}; do
        list "$file" >/dev/null
    done
done
if [ -z "$only_rows" ]; then
    prepare_tree
    # Sockets need a short path, which other users can reach. No file and no process of a mutant outlives the
    # run.
    TMPDIR=$(mktemp -d /tmp/mutants.XXXXXX)
    chmod 1777 "$TMPDIR"
    mkdir -m 700 "$TMPDIR/run"
    export TMPDIR XDG_RUNTIME_DIR=$TMPDIR/run
    export CARGO_TARGET_DIR=$PWD/target/mutants/build CARGO_INCREMENTAL=1 CARGO_PROFILE_DEV_DEBUG=0
    trap 'kill_programs; rm -rf "$TMPDIR"' EXIT
fi
for group in $wanted; do
    IFS='|' read -r _ _ first next <<<"$(groups | grep "^$group|")"
    files=${files_of[$group]}
    work=$PWD/target/mutants/$group
    mkdir -p "$work"
    [ -n "$only_rows" ] || run "$files" "$first" "$next"
    rows "$files"
done

#!/usr/bin/env bash
# Removes each piece of code that handles another kernel's answer, one at a time, and expects that a test
# fails with the answers of that kernel. It shows that the tests which pass in scripts/kernels.sh can fail.
#
#   scripts/kernels-red.sh          prints a line for each; fails if no test noticed
#   scripts/kernels-red.sh WORD     only for those whose description contains the word
#
# Each takes half a minute. Run it before a release, and after a change of
# src/unix/{apple,freebsd,netbsd,openbsd,posix}.rs.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

# This needs its own folder: cargo would take what was built from the changed files for other builds.
target=$(realpath -m "${CARGO_TARGET_DIR:-target}/red")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git ls-files -z | xargs -0 tar cf - | tar xf - -C "$work"

only=${1:-}
missed=()
# without WHAT SYSTEM FILE SED-EXPRESSION TEST-PROGRAM
without() {
    local what=$1 system=$2 file=$3 change=$4 program=$5
    [[ $what == *"$only"* ]] || return 0
    cp "$work/$file" "$work/original"
    sed -i "$change" "$work/$file"
    ! cmp -s "$work/original" "$work/$file" || die "nothing to change in $file for: $what"
    local result=MISSED log=$work/log
    if ! (cd "$work" && CARGO_TARGET_DIR=$target timeout 200 scripts/kernels.sh "$system" -- --test "$program") \
        >"$log" 2>&1; then
        # A failed build does not count. A program whose tests wait for each other may be stopped before
        # it prints its result.
        if grep -qE '^test .* FAILED$|^test result: FAILED|has been running' "$log"; then
            result=red
        else
            result="does not build"
        fi
    fi
    printf '%-8s %-8s %s: %s\n' "$result" "$system" "$what" "$(grep -E '^test .* FAILED$' "$log" | head -n 2 | cut -d' ' -f2 | paste -sd' ')"
    [ "$result" = red ] || missed+=("$what")
    cp "$work/original" "$work/$file"
}

without "no SO_ACCEPTCONN" darwin src/unix/posix.rs 's/Some(libc::ENOPROTOOPT)/Some(-1)/' unix_inherited
without "reads install descriptors" darwin src/unix/apple.rs 's/\(READS_INSTALL_DESCRIPTORS: bool\) = true/\1 = false/' unix_systems
without "accept drops a client at EMFILE" darwin src/unix/apple.rs '/drop(rustix::net::socket/d' contract
without "a full socket is EMSGSIZE" darwin src/unix/apple.rs 's/\(A_FULL_SOCKET_IS_EMSGSIZE: bool\) = true/\1 = false/' unix_systems
without "a full socket is EMSGSIZE" netbsd src/unix/netbsd.rs 's/\(A_FULL_SOCKET_IS_EMSGSIZE: bool\) = true/\1 = false/' unix_systems
without "a peer that has left has no name" darwin src/unix/inherited.rs 's/platform::A_GONE_PEER_HAS_NO_NAME \&\& had()/false/' unix_systems
without "a buffer that cannot be is cut" darwin src/unix/apple.rs 's/\(SIZES_ARE_CUT: bool\) = true/\1 = false/' unix_systems
without "a queue of less than nothing" netbsd src/unix/claim.rs 's/unwrap_or(i32::MAX)/unwrap_or(-1)/' unix_systems
without "descriptors in a message" openbsd src/unix/openbsd.rs 's/\(FDS_TO_SEND: usize\) = 127/\1 = 253/' blocking
without "a write races a close" darwin src/unix.rs 's/Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN/Errno::PIPE | Errno::CONNRESET/' contract
without "a pair has no credentials" netbsd src/unix/stream.rs 's/let stream = |socket: net::UnixStream| {/\0 Peer::of(std::os::fd::AsFd::as_fd(\&socket))?;/' unix_systems
without "more than INT_MAX bytes" darwin src/unix.rs 's/buf.len().min(platform::MOST)/buf.len()/' unix_systems
[ ${#missed[@]} -eq 0 ] || die "no test noticed: ${missed[*]}"

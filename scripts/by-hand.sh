#!/usr/bin/env bash
# Runs the commands of docs/by_hand.md as a reader would, and checks what they print. It fails if a command
# differs from the page, so that this script and the page stay the same.
set -euo pipefail
cd "$(dirname "$0")/.."

socket=/tmp/echo.sock
[ ! -e $socket ] || { echo "by-hand: $socket is there already: is a server running?" >&2; exit 2; }
work=$(mktemp -d)
built=${CARGO_TARGET_DIR:-target}/debug/examples/
server=
trap 'kill $server 2>/dev/null || true; rm -rf "$work"' EXIT
# Otherwise the first command would wait for the compiler, and the second one for the first.
cargo build --quiet --examples

fail() { echo "by-hand: $*" >&2; cat "$work"/* >&2; exit 1; }
# Checks that the page has this command, shows it, and prints it to be run.
given() { grep -qF -- "\$ $1" docs/by_hand.md || fail "not on the page: $1"; echo "\$ $1" >&2; echo "$1"; }
# Runs a command in the background, without `cargo run`, so that signals reach the program itself.
start() { # OUTPUT COMMAND
    local command
    command=$(given "$2")
    command=${command/cargo run --quiet --example /"$built"}
    command=${command/ -- / }
    # Its input is empty and does not end.
    eval "exec $command" >"$work/$1" 2>&1 < <(sleep 60) &
    server=$!
}
wait_for() { # OUTPUT TEXT
    for _ in $(seq 600); do
        grep -qF -- "$2" "$work/$1" 2>/dev/null && return 0
        sleep 0.1
    done
    fail "'$2' did not appear"
}
ended() { # STATUS
    local status=0
    wait $server || status=$?
    [ $status = "$1" ] || fail "it ended with $status, not with $1"
}

start server 'cargo run --quiet --example echo_server -- /tmp/echo.sock'
wait_for server 'listening on /tmp/echo.sock'
eval "$(given 'cargo run --quiet --example echo_client -- /tmp/echo.sock --count 3')" >"$work/client"
wait_for client 'received: olá mundo'
wait_for server 'echo: olá mundo'
eval "$(given 'echo hello | nc -N -U /tmp/echo.sock')" >"$work/netcat"
wait_for netcat 'hello'
eval "$(given 'cargo run --quiet --example echo_client -- /tmp/echo.sock --stdin < Cargo.toml | cmp - Cargo.toml')"
if eval "$(given 'cargo run --quiet --example echo_server -- /tmp/echo.sock')" >"$work/second" 2>&1; then
    fail "a second server started"
fi
wait_for second "already listening there (pid $server)"

kill -INT $server
ended 0
[ ! -e $socket ] && [ ! -e /tmp/.echo.sock.lock ] || fail "something was left"
if eval "$(given 'cargo run --quiet --example echo_client -- /tmp/echo.sock')" >"$work/nobody" 2>&1; then
    fail "a client without a server did not fail"
fi
wait_for nobody 'no server at /tmp/echo.sock'

start crash 'cargo run --quiet --example echo_server -- /tmp/echo.sock'
wait_for crash 'listening on /tmp/echo.sock'
eval "$(given "pkill -KILL -f 'echo_server /tmp/echo.sock'")"
ended 137
[ -e $socket ] || fail "a crash left nothing"
start again 'cargo run --quiet --example echo_server -- /tmp/echo.sock'
wait_for again 'listening on /tmp/echo.sock'
kill -INT $server
ended 0

start keyboard 'nc -l -U /tmp/echo.sock'
netcat=$server
for _ in $(seq 100); do [ -S $socket ] && break; sleep 0.1; done
start under 'cargo run --quiet --example echo_client -- /tmp/echo.sock'
wait_for keyboard 'olá mundo'
kill $netcat
# The server is gone, so the client ends by itself.
ended 0
rm $socket
echo "by-hand: all as the page says"

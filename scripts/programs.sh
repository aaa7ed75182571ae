#!/usr/bin/env bash
# Runs real programs through `sockpipe relay` and without it. A program must print the same both times.
#
#   scripts/programs.sh                 runs all of them; do so before each release
#   scripts/programs.sh sample          runs those that most Debian machines have; CI does so
#   scripts/programs.sh redis tmux ...  runs these
#
# It installs missing programs with apt-get, or skips them with a message. The exit code is 0 if all that ran
# printed the same, 1 if one did not, and 2 if none could run.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
# shellcheck source=scripts/lib.sh
. scripts/lib.sh

all=(redis postgres nginx ssh_agent tmux dbus git curl neovim haproxy docker)
[ -n "${SOCKPIPE:-}" ] || cargo build --quiet --locked -p sockpipe-cli || exit 2
SOCKPIPE=$(realpath "${SOCKPIPE:-${CARGO_TARGET_DIR:-target}/debug/sockpipe}")
top=$PWD

# has COMMAND PACKAGE: whether the command exists, or can be installed.
has() {
    command -v "$1" >/dev/null && return 0
    (need "$2") >&2 && command -v "$1" >/dev/null
}
# start COMMAND...: runs the command in the background, until this program's part ends.
start() { "$@" >>log 2>&1 & pids+=($!); }
# appears PATH: waits for the socket.
appears() {
    for _ in $(seq 100); do [ -S "$1" ] && return 0; sleep 0.1; done
    echo "$1 does not appear" >&2
    return 1
}
# relay FROM TO
relay() { start "$SOCKPIPE" -q relay "$1" "$2"; appears "$1"; }
# same FUNCTION REAL FRONT: compares what the function prints with both addresses, each replaced by ADDRESS.
same() {
    relay "$3" "$2" || return 1
    timeout 60 bash -c "$(declare -f "$1"); $1 $2" 2>&1 | sed "s#$2#ADDRESS#g" >direct
    timeout 60 bash -c "$(declare -f "$1"); $1 $3" 2>&1 | sed "s#$3#ADDRESS#g" >relayed
    [ -s direct ] || { echo "nothing is printed without the relay"; return 1; }
    diff direct relayed
}
# Programs that refuse to run as root run as this user.
as_user() { if [ "$(id -u)" = 0 ]; then setpriv --reuid=nobody --regid=nogroup --clear-groups "$@"; else "$@"; fi; }

try_redis() {
    has redis-server redis-server || return 2
    start redis-server --port 0 --unixsocket "$PWD/r.sock" --save '' && appears "$PWD/r.sock" || return 1
    ask() {
        head -c 5000000 /dev/zero | tr '\0' x | redis-cli -s "$1" -x set big
        redis-cli -s "$1" strlen big
        redis-cli -s "$1" get big | md5sum
        for n in $(seq 500); do echo "incr n$1"; done | redis-cli -s "$1" | tail -n 1
    }
    same ask "$PWD/r.sock" "$PWD/f.sock"
}

try_postgres() {
    has psql postgresql || return 2
    local bin
    bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | tail -n 1)
    [ -x "$bin/initdb" ] || (need postgresql) >&2 || return 2
    bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
    mkdir data real front && chmod 777 data real && chmod 711 .
    [ "$(id -u)" != 0 ] || chown nobody data
    as_user "$bin/initdb" -D "$PWD/data/db" -A trust -U me >>log 2>&1 || return 1
    start as_user "$bin/postgres" -D "$PWD/data/db" -k "$PWD/real" -c listen_addresses=
    appears "$PWD/real/.s.PGSQL.5432" || return 1
    # By default the relay connects only to a server of this user or of the system.
    start "$SOCKPIPE" -q relay --any-server "$PWD/front/.s.PGSQL.5432" "$PWD/real/.s.PGSQL.5432"
    appears "$PWD/front/.s.PGSQL.5432" || return 1
    local where
    for where in real front; do
        for _ in $(seq 50); do psql -h "$PWD/$where" -U me -l >/dev/null 2>&1 && break; sleep 0.2; done
        psql -h "$PWD/$where" -U me -d postgres -At -c 'select 6*7' \
            -c 'select md5(string_agg(i::text, $$,$$)) from generate_series(1, 300000) i' \
            -c 'copy (select repeat($$x$$, 1000) from generate_series(1, 5000)) to stdout' >$where.out 2>&1
    done
    cmp real.out front.out && grep -qx 42 front.out || return 1
    [ -x "$bin/pgbench" ] || return 0
    "$bin/pgbench" -h "$PWD/real" -U me -i -q postgres >>log 2>&1
    for where in real front; do
        "$bin/pgbench" -h "$PWD/$where" -U me -S -c4 -T3 postgres 2>/dev/null |
            sed -n "s/^tps = \([0-9]*\).*/pgbench -S -c4, $where: \1 a second/p"
    done
}

try_nginx() {
    has nginx nginx-light && has curl curl || return 2
    mkdir www && head -c 3000000 /dev/urandom >www/file
    printf '%s\n' 'daemon off; pid nginx.pid; error_log err; events {}' \
        "http { access_log off; client_body_temp_path t1; proxy_temp_path t2; fastcgi_temp_path t3;" \
        "uwsgi_temp_path t4; scgi_temp_path t5; server { listen unix:$PWD/n.sock; root $PWD/www; } }" >conf
    chmod -R a+rX . && start command nginx -p "$PWD" -c "$PWD/conf" && appears "$PWD/n.sock" || return 1
    ask() { for _ in 1 2 3; do curl -s --unix-socket "$1" http://x/file | md5sum; done; }
    same ask "$PWD/n.sock" "$PWD/f.sock"
}

try_ssh_agent() {
    has ssh-agent openssh-client || return 2
    ssh-keygen -q -t ed25519 -N '' -C key -f key
    start ssh-agent -D -a "$PWD/a.sock" && appears "$PWD/a.sock" || return 1
    SSH_AUTH_SOCK=$PWD/a.sock ssh-add -q key && echo text >text
    ask() {
        export SSH_AUTH_SOCK=$1
        ssh-add -l
        ssh-keygen -q -Y sign -n file -f key.pub <text
        for _ in $(seq 20); do ssh-add -L; done
    }
    same ask "$PWD/a.sock" "$PWD/f.sock"
}

try_tmux() {
    has tmux tmux || return 2
    export TERM=xterm
    # Descriptors of the client's terminal go to the server with its first message.
    command tmux -S "$PWD/t.sock" -f /dev/null new-session -d -s one || return 1
    ask() {
        for _ in $(seq 10); do tmux -S "$1" list-sessions -F '#{session_name}'; done
        tmux -S "$1" display-message -p '#{version}' | wc -l
        # The output goes through a descriptor that was passed.
        seq 5000 | tmux -S "$1" load-buffer - && tmux -S "$1" save-buffer - | md5sum
    }
    same ask "$PWD/t.sock" "$PWD/f.sock"
    local code=$?
    command tmux -S "$PWD/t.sock" kill-server
    return $code
}

try_dbus() {
    has dbus-daemon dbus-daemon && has dbus-send dbus-bin || return 2
    start dbus-daemon --session --nofork --nopidfile --address="unix:path=$PWD/d.sock"
    appears "$PWD/d.sock" || return 1
    ask() {
        for method in ListActivatableNames GetId; do
            dbus-send --bus="unix:path=$1" --print-reply=literal --dest=org.freedesktop.DBus \
                /org/freedesktop/DBus org.freedesktop.DBus.$method
        done
    }
    same ask "$PWD/d.sock" "$PWD/f.sock"
}

try_git() {
    has git git || return 2
    mkdir -m 700 c f
    start command git credential-cache--daemon "$PWD/c/sock" && appears "$PWD/c/sock" || return 1
    printf 'protocol=https\nhost=example.org\nusername=me\npassword=secret\n\n' |
        command git credential-cache --socket "$PWD/c/sock" store
    ask() { printf 'protocol=https\nhost=example.org\n\n' | git credential-cache --socket "$1" get; }
    same ask "$PWD/c/sock" "$PWD/f/sock"
}

try_curl() {
    has curl curl && has python3 python3 || return 2
    start python3 "$top/scripts/fake_engine.py" "$PWD/h.sock" && appears "$PWD/h.sock" || return 1
    head -c 3000000 /dev/urandom >body
    ask() {
        curl -s --unix-socket "$1" http://x/_ping
        curl -s --unix-socket "$1" --data-binary @body http://x/echo | md5sum
    }
    same ask "$PWD/h.sock" "$PWD/f.sock"
}

try_neovim() {
    has nvim neovim || return 2
    start nvim --headless -u NONE --listen "$PWD/v.sock" && appears "$PWD/v.sock" || return 1
    ask() { for n in 1 2 3; do nvim --server "$1" --remote-expr "repeat('x', $n * 10000)" | md5sum; done; }
    same ask "$PWD/v.sock" "$PWD/f.sock"
}

try_haproxy() {
    has haproxy haproxy || return 2
    printf '%s\n' 'global' "  stats socket $PWD/p.sock mode 600 level admin" 'defaults' '  mode http' \
        '  timeout connect 1s' '  timeout client 1s' '  timeout server 1s' 'frontend f' "  bind unix@$PWD/w.sock" >conf
    start command haproxy -db -f conf && appears "$PWD/p.sock" || return 1
    ask() { for what in 'show version' 'show stat' 'help'; do echo "$what" | "$SOCKPIPE" connect "$1"; done; }
    export SOCKPIPE
    same ask "$PWD/p.sock" "$PWD/f.sock"
}

try_docker() {
    has docker docker-cli && has python3 python3 || return 2
    start python3 "$top/scripts/fake_engine.py" "$PWD/e.sock" && appears "$PWD/e.sock" || return 1
    ask() { DOCKER_CONFIG=$PWD docker -H "unix://$1" version --format '{{json .Server}}'; }
    same ask "$PWD/e.sock" "$PWD/f.sock"
}

case ${1:-all} in
    all) chosen=("${all[@]}") ;;
    sample) chosen=(redis ssh_agent tmux git curl) ;;
    *) chosen=("$@") ;;
esac
right=0 wrong=0 skipped=0
for program in "${chosen[@]}"; do
    work=$(mktemp -d)
    (
        cd "$work" || exit 1
        pids=()
        trap 'kill "${pids[@]}" 2>/dev/null; wait 2>/dev/null' EXIT
        "try_$program"
    ) >"$work/said" 2>&1
    case $? in
        0) right=$((right + 1)) && say "$program: the same through the relay" && cat "$work/said" >&2 ;;
        2) skipped=$((skipped + 1)) && say "SKIPPED $program: it is not here and could not be installed" ;;
        *)
            wrong=$((wrong + 1)) && say "FAILED $program"
            tail -n 20 "$work/said" "$work/log" >&2 2>/dev/null
            ;;
    esac
    rm -rf "$work"
done
say "$right the same, $wrong not, $skipped skipped"
[ $((right + wrong)) -gt 0 ] || exit 2
[ $wrong = 0 ]

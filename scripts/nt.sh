#!/usr/bin/env bash
# Runs the tests of the Windows backend under a model of NT. The model is the installed Wine with its server
# built again: it answers about pipes as NT is documented to (scripts/nt/model.py), and some calls give it more
# information (scripts/nt/redirect.c). This tests our handling of these answers, and not Windows itself.
#
#   scripts/nt.sh [--at-hand] [-- CARGO TEST ARGUMENTS]
#   scripts/nt.sh stop      ends the server, which would otherwise stay for two hours
#
# The server is built once, from the source of the installed Debian or Ubuntu package. With --at-hand it
# exits with 77 unless that has been done. Without arguments for cargo it runs the tests that otherwise need a real
# Windows, and those of pipes, of the contract and of the tool.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"
cd "$here/.."

at_hand=
[ "${1:-}" != --at-hand ] || { at_hand=1 && shift; }
stop=
[ "${1:-}" != stop ] || { stop=1 && shift; }
[ "${1:-}" != -- ] || shift

# A server that was built from one source is useless for another source, or for other edits.
server() {
    local wine
    wine=$(dpkg-query -W -f '${source:Package} ${source:Version}' libwine 2>/dev/null) || return 1
    printf '%s/nt-%s/wineserver' "$CACHE" "$({ echo "$wine" && cat scripts/nt/*; } | cksum | cut -d' ' -f1)"
}

# Fetches the source of the installed Wine, with Debian's patches. The archive that has the package also has
# its source. The machine's own configuration stays unchanged.
source_of_wine() { # FOLDER
    local package version uri suite line work=$1
    read -r package version < <(dpkg-query -W -f '${source:Package} ${source:Version}\n' libwine)
    apt-cache show libwine >/dev/null 2>&1 || refresh_lists
    while IFS='|' read -r _ line uri; do
        [ "${line// /}" = "$(dpkg-query -W -f '${Version}' libwine)" ] || continue
        read -r uri suite _ <<<"$uri"
        printf 'deb-src %s %s %s\n' "$uri" "${suite%%/*}" "${suite##*/}"
    done < <(apt-cache madison libwine) | sort -u >"$work/sources.list"
    [ -s "$work/sources.list" ] || die "no archive has the installed Wine any more; upgrade it"
    mkdir -p "$work/lists/partial"
    local options=(-qq -o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$work/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache=
        -o Acquire::Retries=3 -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update >&2 || die "apt-get update of the sources failed"
    (cd "$work" && apt-get "${options[@]}" source --download-only "$package=$version") >&2 ||
        die "the source of $package $version could not be had"
    dpkg-source --no-check -x "$work"/*.dsc "$work/source" >"$work/log" 2>&1 ||
        { tail "$work/log" >&2 && die "the source of Wine did not unpack"; }
}

build_server() { # WHERE
    local work
    need dpkg-dev autoconf autotools-dev flex bison gcc libc6-dev python3
    mkdir -p "$CACHE"
    work=$(mktemp -d "$CACHE/nt.XXXXXX")
    # shellcheck disable=SC2064 # of now
    trap "rm -rf '$work'" EXIT
    say "building wineserver from the source of the installed Wine, once"
    source_of_wine "$work"
    python3 scripts/nt/model.py "$work/source/server"
    mkdir -p "$work/build/parts" "$work/whole"
    (cd "$work/build" && compile_server) >"$work/log" 2>&1 </dev/null ||
        { tail -n 20 "$work/log" >&2 && die "wineserver did not build"; }
    # A single rename, so that the folder exists only when it is complete. If another process was faster, its
    # folder stays.
    mv -T "$work/whole" "${1%/*}" 2>/dev/null || [ -x "$1" ]
    rm -rf "$work"
    trap - EXIT
}

# Builds in a folder beside the source. Only Wine's server is built, and not with Wine's makefile, because
# that needs files of the other parts, which the package leaves out.
compile_server() {
    cat >flags <<-'FLAGS'
		-O1 -w -Iinclude -I../source/include -I../source/server -D__WINESRC__ -D_NTSYSTEM_ -DWINE_UNIX_LIB
		-DBINDIR=\"/usr/lib/wine\" -DDATADIR=\"/usr/share\" -DNLSDIR=\"/usr/share/wine/nls\"
		-DBIN_TO_NLSDIR=\"../../share/wine/nls\"
	FLAGS
    (
        cd ../source
        cp /usr/share/misc/config.sub /usr/share/misc/config.guess tools
        # Generates files from the protocol. The names of requests would be in these two.
        : >server/trace.generated
        : >server/request.generated
        tools/make_requests
        autoreconf -f
    ) || return
    # This fails at the makefile, but by then it has examined the system.
    ../source/configure --enable-win64 --disable-tests --without-x --without-freetype || true
    [ -s include/config.h ] || return
    printf '%s\0' ../source/server/*.c | xargs -0 -n 1 -P "$(nproc)" sh -c \
        'gcc @flags -c "$1" -o "parts/${1##*/}.o"' - || return
    gcc -o ../whole/wineserver parts/*.o -lrt -lm -lpthread
}

SOCKPIPE_WINESERVER=$(server || true)
if [ -n "$stop" ]; then
    [ ! -x "$SOCKPIPE_WINESERVER" ] || SOCKPIPE_WINESERVER=$SOCKPIPE_WINESERVER scripts/windows.sh stop
    exit
fi
if [ -n "$at_hand" ] && [ ! -x "$SOCKPIPE_WINESERVER" ]; then
    say "not run: the model of NT has not been built on this machine; scripts/nt.sh does so"
    exit 77
fi
need wine64
SOCKPIPE_WINESERVER=$(server) || die "the installed Wine is no package of this distribution"
[ -x "$SOCKPIPE_WINESERVER" ] || build_server "$SOCKPIPE_WINESERVER"
export SOCKPIPE_WINESERVER SOCKPIPE_NT_MODEL=1

if [ $# -gt 0 ]; then
    scripts/windows.sh test --locked "$@"
    exit
fi
scripts/windows.sh test --locked --lib --test windows_real --test contract --test windows_ends --test windows_pipe
scripts/windows.sh test --locked --test daemon of_many_instances
scripts/windows.sh test --locked --features blocking --test contract blocking::
scripts/windows.sh test --locked -p sockpipe-cli

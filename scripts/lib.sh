# What the scripts share. Sourced, never run.
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
ROOT=$PWD
# Debian's own Python, which has the pip and pytest that setup installs, whatever other one comes first in PATH.
PYTHON=/usr/bin/python3

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

# A free TCP port of the loopback address.
free_port() {
    "$PYTHON" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

# Where PostgreSQL's programs are: PG_BIN, or the newest that Debian installed.
pg_bin() {
    if [ -n "${PG_BIN:-}" ]; then readlink -f "$PG_BIN"; else ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1; fi
}

# PostgreSQL refuses to run as root: root drops to the user that Debian's package made, or to the one who owns the data (PG_USER).
as_pg() {
    if [ "$(id -u)" = 0 ]; then runuser -u "${PG_USER:-postgres}" -- "$@"; else "$@"; fi
}

# pg_start DATA_DIR PORT LOG [OPTION…]: makes the cluster if needed (user opstream, password in PGPASSWORD) and starts it on loopback.
pg_start() {
    local data=$1 port=$2 log=$3 bin pw
    shift 3
    bin=$(pg_bin)
    [ -x "$bin/postgres" ] || die "PostgreSQL is not installed: make setup"
    if [ ! -f "$data/PG_VERSION" ]; then
        mkdir -p "$data"
        [ "$(id -u)" != 0 ] || chown "${PG_USER:-postgres}" "$data"
        chmod 700 "$data"
        pw=$(mktemp /tmp/opstream-pw.XXXXXX)
        printf '%s\n' "$PGPASSWORD" >"$pw"
        [ "$(id -u)" != 0 ] || chown "${PG_USER:-postgres}" "$pw"
        (cd / && as_pg "$bin/initdb" -D "$data" -U opstream -A scram-sha-256 --pwfile="$pw" -E UTF8 --locale=C.UTF-8 --no-sync) >"$log.init" 2>&1 ||
            { cat "$log.init" >&2; rm -rf "$pw" "${data:?}"; die "PostgreSQL's data folder $data could not be made"; }
        rm -f "$pw" "$log.init"
    fi
    : >>"$log"
    [ "$(id -u)" != 0 ] || chown "${PG_USER:-postgres}" "$log"
    (cd / && as_pg "$bin/pg_ctl" -D "$data" -l "$log" -w -t 60 -s start \
        -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c shared_buffers=256MB -c max_connections=300 \
            -c client_connection_check_interval=2s -c random_page_cost=1.1 -c jit=off $*") >/dev/null ||
        { tail -n 20 "$log" >&2; die "PostgreSQL did not start; its log: $log"; }
}

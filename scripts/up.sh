#!/usr/bin/env bash
# Starts what `make up` promises and what is not running yet: a private PostgreSQL and Redis, the API and one worker. Data, ports and secrets stay
# the same from one time to the next. Settings given in the environment go to both programs and are remembered in build/run/settings until they
# are given again (an empty value forgets one). OPSTREAM_RUN_DIR takes the place of build/run. --quiet: say nothing when all went well.
set -eu
. "$(dirname "$0")/instance.sh"
quiet=
[ "${1:-}" != --quiet ] || quiet=1
note() { [ -n "$quiet" ] || say "$*"; }
API=$ROOT/build/bin/opstream-api
WORKER=$ROOT/build/bin/opstream-worker
for program in "$API" "$WORKER"; do [ -x "$program" ] || die "$program is not built: make"; done
command -v redis-server >/dev/null && [ -n "$(pg_bin)" ] || die "PostgreSQL or Redis is not installed: make setup"

umask 077
mkdir -p "$RUN" 2>/dev/null && [ -w "$RUN" ] || die "$RUN cannot be written by $(id -un): it belongs to $(stat -c %U "$RUN" 2>/dev/null || echo another user)"
# A checkout whose files belong to somebody else than root, but run by root once, would be closed to that somebody ever after.
touch "$RUN/.opstream"
exec 9>>"$RUN/.lock"
flock -w 180 9 || die "another make up or make down is at work in $RUN"

# --- settings, secrets and ports --------------------------------------------------------------------------------------------------------

# Names and aliases, as the programs themselves list them.
setting_names() {
    { "$API" --help; "$WORKER" --help; } | awk '/^  [A-Z][A-Z0-9_]*/ {
        n = split($0, word, /[ (),]+/)
        for (i = 1; i <= n; i++)
            if (word[i] ~ /^[A-Z][A-Z0-9_]+$/) print word[i]; else if (word[i] == "=" || word[i] == "required") break
    }' | sort -u
}

is_in() { [[ " $2 " == *" $1 "* ]]; }

# Settings of the environment win over those remembered. Those of a process alone (ports) are remembered apart from the rest.
remember_settings() {
    local name value file=$RUN/settings own=$RUN/own-settings
    touch "$file" "$own"
    cp "$file" "$file.before"
    cp "$own" "$own.before"
    for name in $(setting_names); do
        [ -n "${!name+set}" ] || continue
        value=${!name}
        if is_in "$name" "DATABASE_URL REDIS_URL"; then
            [ -n "${OPSTREAM_ENV_FROM:-}" ] || note "  note: $name of your environment is not used, make up has its own server"
            continue
        fi
        # A shell that has sourced build/run/env hands back what up.sh made.
        if [ -n "${OPSTREAM_ENV_FROM:-}" ] && is_in "$name" "$GENERATED"; then
            is_in "$name" "OPSTREAM_SOURCE_ROOTS OPSTREAM_MODEL_DIR" && [ -f "$RUN/env" ] &&
                [ "$value" != "$(value_of "$RUN/env" "$name")" ] || continue
        fi
        local target=$file
        ! is_in "$name" "$OWN_PORTS" || target=$own
        sed -i "/^export $name=/d" "$target"
        [ -z "$value" ] || { [[ $value != *$'\n'* ]] || die "$name holds a line break"; printf 'export %s=%s\n' "$name" "$(quoted "$value")" >>"$target"; }
    done
}

secret() { # NAME: made once, kept in a file that only its owner reads
    local file=$RUN/secrets
    touch "$file"
    chmod 600 "$file"
    grep -q "^export $1=" "$file" || printf 'export %s=%s\n' "$1" "$(openssl rand -hex 32)" >>"$file"
    value_of "$file" "$1"
}

port_is_free() {
    "$PYTHON" - "$1" <<'PY'
import socket, sys
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
try:
    s.bind(("127.0.0.1", int(sys.argv[1])))
except OSError:
    sys.exit(1)
PY
}

# choose_port NAME [FAVOURITE]: the remembered port; when something else has taken it, another one.
choose_port() {
    local file=$RUN/$1.port port
    port=$(cat "$file" 2>/dev/null || true)
    if [ -z "$(pid_of "$1")" ]; then
        if [ -z "$port" ] || ! port_is_free "$port"; then
            port=${2:-}
            [ -n "$port" ] && port_is_free "$port" || port=$(free_port)
        fi
        echo "$port" >"$file"
    fi
    cat "$file"
}

# given_port NAME SETTING FAVOURITE: the same for a port that the user may have asked for by number (0 = any).
given_port() {
    local wanted
    wanted=$(value_of "$RUN/own-settings" "$2")
    if [ -n "$wanted" ] && [ "$wanted" != 0 ]; then
        if [ "$(cat "$RUN/$1.port" 2>/dev/null)" != "$wanted" ]; then
            port_is_free "$wanted" || die "$2=$wanted: that port is taken"
            stop "$1" 25
            echo "$wanted" >"$RUN/$1.port"
        fi
        echo "$wanted"
    else
        choose_port "$1" "$3"
    fi
}

# --- processes ---------------------------------------------------------------------------------------------------------------------------

# launch NAME COMMAND…: in the background, in a session of its own, its own process id in NAME.pid, its output in NAME.log.
launch() {
    local name=$1
    shift
    rm -f "$RUN/$name.pid"
    # The shell writes its own process id and then becomes the program.
    setsid bash -c 'echo $$ >"$1.new" && mv "$1.new" "$1" && shift && exec "$@"' launch "$RUN/$name.pid" "$@" \
        </dev/null >>"$RUN/$name.log" 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
    disown
    for _ in $(seq 100); do
        [ ! -s "$RUN/$name.pid" ] || return 0
        sleep 0.02
    done
}

# Settings that the programs do not accept are not remembered.
forget_settings() {
    mv -f "$RUN/settings.before" "$RUN/settings"
    mv -f "$RUN/own-settings.before" "$RUN/own-settings"
}

failed() { # NAME SENTENCE
    forget_settings
    {
        say "$1 did not start: $2. The end of its log ($RUN/$1.log):"
        tail -n 15 "$RUN/$1.log" 2>/dev/null | cut -c1-400 | sed 's/^/    /'
        say "What to do: read the line above that says error; 'make down' and 'make up' starts again; 'make clean-data' forgets all data."
    } >&2
    exit 1
}

# wait_ready NAME URL SECONDS: until it answers 200; a process that has ended is not waited for.
wait_ready() {
    local i answer=
    for ((i = 0; i < $3 * 20; i++)); do
        answer=$(curl -s -o "$RUN/.ready" -w '%{http_code}' --max-time 2 "$2" 2>/dev/null || true)
        [ "$answer" != 200 ] || { rm -f "$RUN/.ready"; return 0; }
        # Twice, as the process may just be turning from the launching shell into the program.
        [ -n "$(pid_of "$1")" ] || { sleep 0.5 && [ -n "$(pid_of "$1")" ]; } || failed "$1" "it ended by itself"
        sleep 0.05
    done
    failed "$1" "not ready after $3 s, $2 answers ${answer:-nothing} $(head -c 300 "$RUN/.ready" 2>/dev/null)"
}

start_postgres() {
    local home port
    if [ ! -e "$RUN/postgres" ]; then
        home=$RUN/postgres
        if [ "$(id -u)" = 0 ]; then
            # Its user has to reach the data, and a new folder of mode 0700 in the way is no obstacle, as this one's is known.
            chmod 711 "$RUN"
            if ! runuser -u postgres -- test -x "$RUN"; then
                home=$(getent passwd postgres | cut -d: -f6)/opstream-$(printf '%s' "$RUN" | sha256sum | cut -c1-12)
                ln -s "$home" "$RUN/postgres"
            fi
        fi
        mkdir -p "$home"
    fi
    home=$(pg_home)
    PG_USER=postgres
    [ "$(id -u)" = 0 ] || PG_USER=$(id -un)
    if [ -f "$home/data/PG_VERSION" ]; then
        PG_USER=$(stat -c %U "$home/data")
        [ "$(id -u)" = 0 ] || [ "$PG_USER" = "$(id -un)" ] || die "the data in $RUN belong to $PG_USER: run make up as root, or make clean-data as root first"
    fi
    export PG_USER
    [ "$(id -u)" != 0 ] || chown "$PG_USER" "$home"
    chmod 755 "$home"
    [ -L "$RUN/postgres.log" ] || ln -sfn "$home/postgres.log" "$RUN/postgres.log"
    port=$(choose_port postgres)
    if [ -z "$(pid_of postgres)" ]; then
        # After a power cut another process may have got the number in the lock file, and PostgreSQL would take it for a running server. (A lock
        # file of a process that is dead is left alone: PostgreSQL looks after what that one's children still hold.)
        local stale fresh=
        stale=$(head -n 1 "$home/data/postmaster.pid" 2>/dev/null || true)
        [ -z "$stale" ] || [ ! -d "/proc/$stale" ] || rm -f "$home/data/postmaster.pid"
        [ -f "$home/data/PG_VERSION" ] || fresh=1
        PGPASSWORD=$(secret POSTGRES_PASSWORD) pg_start "$home/data" "$port" "$home/postgres.log" -c wal_compression=on 9>&-
        [ -z "$fresh" ] || sync -f "$home/data"
    fi
    pid_of postgres >"$RUN/postgres.pid"
    URL_DATABASE=postgresql://opstream:$(secret POSTGRES_PASSWORD)@127.0.0.1:$port/opstream
    local psql=("$(pg_bin)/psql" -X -q -A -t -d "${URL_DATABASE%/opstream}/postgres")
    [ -x "${psql[0]}" ] || psql[0]=psql
    [ "$("${psql[@]}" -c "SELECT 1 FROM pg_database WHERE datname = 'opstream'")" = 1 ] ||
        "${psql[@]}" -c 'CREATE DATABASE opstream' || failed postgres "its database could not be made"
}

start_redis() {
    local port
    port=$(choose_port redis)
    mkdir -p "$RUN/redis"
    # The password goes in by a file: a command line is everyone's to read.
    printf '%s\n' "bind 127.0.0.1" "port $port" "dir \"$RUN/redis\"" "appendonly yes" 'save ""' "maxmemory-policy noeviction" \
        "requirepass $(secret REDIS_PASSWORD)" >"$RUN/redis/redis.conf"
    URL_REDIS=redis://default:$(secret REDIS_PASSWORD)@127.0.0.1:$port
    if [ -z "$(pid_of redis)" ]; then
        launch redis redis-server "$RUN/redis/redis.conf"
    fi
    local i
    for ((i = 0; i < 400; i++)); do
        [ "$(redis-cli -u "$URL_REDIS" --no-auth-warning ping 2>/dev/null)" != PONG ] || return 0
        [ "$i" -lt 10 ] || [ -n "$(pid_of redis)" ] || failed redis "it ended by itself"
        sleep 0.05
    done
    failed redis "it does not answer"
}

write_env() {
    local roots=$RUN/documents models=$ROOT/build/models folder
    mkdir -p "$RUN/documents"
    for folder in /usr/share/doc /usr/share/developers-reference; do
        [ ! -d "$folder" ] || roots=$roots:$folder
    done
    {
        say "# Made by make up: what programs and people need to talk to this instance. Use it with: . ${RUN#"$ROOT"/}/env"
        say "export OPSTREAM_ENV_FROM=$(quoted "$RUN")"
        say "export OPSTREAM_URL=$(quoted "http://127.0.0.1:$api_port")"
        say "export DATABASE_URL=$(quoted "$URL_DATABASE")"
        say "export REDIS_URL=$(quoted "$URL_REDIS")"
        grep -q '^export JWT_SECRET_KEY=' "$RUN/settings" || say "export JWT_SECRET_KEY=$(quoted "$(secret JWT_SECRET_KEY)")"
        grep -q '^export INTERNAL_API_KEY=' "$RUN/settings" || say "export INTERNAL_API_KEY=$(quoted "$(secret INTERNAL_API_KEY)")"
        grep -q '^export OPSTREAM_SOURCE_ROOTS=' "$RUN/settings" || say "export OPSTREAM_SOURCE_ROOTS=$(quoted "$roots")"
        grep -qE '^export (OPSTREAM_)?MODEL_DIR=' "$RUN/settings" || say "export OPSTREAM_MODEL_DIR=$(quoted "$models")"
        cat "$RUN/settings"
    } >"$RUN/env.new"
    mv "$RUN/env.new" "$RUN/env"
}

# What a running process was started with: the environment file, its own ports, and the program itself.
fingerprint() { # PORT PROGRAM
    { cat "$RUN/env" "$RUN/own-settings"; echo "$1"; stat -c '%d %i %Y %s' "$2"; } | sha256sum | cut -d' ' -f1
}

# start_program NAME PROGRAM PORT_SETTING PORT: leaves one alone that runs with the same settings.
start_program() {
    local name=$1 program=$2 setting=$3 port=$4 now
    now=$(fingerprint "$port" "$program")
    if [ -n "$(pid_of "$name")" ]; then
        [ "$now" != "$(cat "$RUN/$name.started" 2>/dev/null)" ] || return 0
        note "  $name: settings or program changed, starting it again"
        stop "$name" 30
    fi
    (
        # shellcheck disable=SC2046
        unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES PGPASSWORD $(setting_names)
        # shellcheck disable=SC1091
        . "$RUN/env"
        # shellcheck disable=SC1091
        . "$RUN/own-settings"
        unset OPSTREAM_ENV_FROM OPSTREAM_URL
        export "$setting=$port"
        cd "$ROOT"
        launch "$name" "$program"
    )
    echo "$now" >"$RUN/$name.started"
}

migrate() (
    # shellcheck disable=SC2046
    unset $(setting_names)
    # shellcheck disable=SC1091
    . "$RUN/env"
    "$API" --migrate >"$RUN/migrate.log" 2>&1 || {
        forget_settings
        cat "$RUN/migrate.log" >&2
        die "the database could not be brought up to date, nothing was changed"
    }
)

models_there() {
    local models
    models=$(value_of "$RUN/env" OPSTREAM_MODEL_DIR)
    [ -n "$models" ] || models=$(value_of "$RUN/env" MODEL_DIR)
    ls "$models"/*/config.json >/dev/null 2>&1 || die "there is no model in $models: make setup"
}

started=$SECONDS
remember_settings
running="$(pid_of postgres) $(pid_of redis) $(pid_of worker) $(pid_of api)"
start_postgres
start_redis
api_port=$(given_port api API_PORT 8080)
worker_port=$(given_port worker WORKER_PORT "")
write_env
models_there
migrate
start_program worker "$WORKER" WORKER_PORT "$worker_port"
start_program api "$API" API_PORT "$api_port"
wait_ready api "http://127.0.0.1:$api_port/api/health/readyz" 30
wait_ready worker "http://127.0.0.1:$worker_port/readyz" 90
after="$(pid_of postgres) $(pid_of redis) $(pid_of worker) $(pid_of api)"
rm -f "$RUN/settings.before" "$RUN/own-settings.before"
if [ "$running" = "$after" ]; then
    note "Opstream is running already: http://127.0.0.1:$api_port"
else
    note "Opstream is running: http://127.0.0.1:$api_port  ($((SECONDS - started)) s; addresses and keys: ${RUN#"$ROOT"/}/env; make down stops it)"
fi

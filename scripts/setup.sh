#!/usr/bin/env bash
# Installs what Opstream needs to be built, run and tested on Debian 12, and nothing that is there already. Works as root and as a user with sudo.
set -eu
. "$(dirname "$0")/lib.sh"

PACKAGES="build-essential gawk git pkg-config dpkg-dev ca-certificates curl jq openssl unzip
libmicrohttpd-dev libwebsockets-dev libwebsockets-evlib-uv libuv1-dev libhiredis-dev libpq-dev libcjson-dev libcmocka-dev libargon2-dev
libcrypt-dev libssl-dev libcurl4-openssl-dev libxml2-dev libarchive-dev libmagic-dev libuchardet-dev libutf8proc-dev libseccomp-dev
zlib1g-dev postgresql-15 postgresql-server-dev-15 postgresql-client-15 redis-server redis-tools poppler-utils
python3 python3-venv python3-pip python3-pytest python3-pytest-xdist python3-yaml clang clang-format clang-tidy libclang-rt-14-dev cppcheck spin debian-faq developers-reference
chromium fonts-liberation node-react-dom node-typescript"
PGVECTOR_VERSION=0.8.0

mkdir -p build 2>/dev/null && [ -w build ] || die "$ROOT/build cannot be written by $(id -un)"
LOG=$ROOT/build/setup.log

sudo_if_needed() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi
}

may_install() {
    command -v apt-get >/dev/null || die "setup knows Debian's apt-get only. Install these by hand, under your system's names: $(tr '\n' ' ' <<<"$PACKAGES")"
    [ "$(id -u)" = 0 ] || command -v sudo >/dev/null || die "Debian packages are missing and $(id -un) has no sudo: run 'make setup' once as root"
}

# Runs a step with its output in the log; shows the log's end if it fails.
step() {
    local what=$1
    shift
    say "  $what …"
    "$@" >>"$LOG" 2>&1 || { tail -n 30 "$LOG" >&2; die "setup failed at: $what (whole log: build/setup.log)"; }
}

missing_packages() {
    # shellcheck disable=SC2086
    dpkg-query -W -f '${Package} ${Status}\n' $PACKAGES 2>/dev/null | awk '/ok installed/ {print $1}' | sort >build/.have || true
    printf '%s\n' $PACKAGES | sort | comm -23 - build/.have
    rm -f build/.have
}

install_packages() {
    # Neither server may start by itself: make up and the tests start private ones.
    local policy=/usr/sbin/policy-rc.d made= conf=/etc/postgresql-common/createcluster.conf
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | sudo_if_needed tee "$policy" >/dev/null
        sudo_if_needed chmod +x "$policy"
        made=1
        trap 'sudo_if_needed rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    sudo_if_needed mkdir -p /etc/postgresql-common
    [ -e "$conf" ] || echo 'create_main_cluster = false' | sudo_if_needed tee "$conf" >/dev/null
    local ok=0
    for _ in 1 2 3; do
        sudo_if_needed apt-get update -q || true
        # shellcheck disable=SC2086
        sudo_if_needed env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
            -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@" && { ok=1; break; }
        sleep 3
    done
    [ -z "$made" ] || { sudo_if_needed rm -f "$policy"; trap - EXIT; }
    [ "$ok" = 1 ]
}

# pgvector from trixie's source package, built against bookworm's PostgreSQL: the signed official archive and no new libc.
install_pgvector() {
    local work uri
    work=$(mktemp -d)
    uri=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null | grep -v security | head -n 1)
    [ -n "$uri" ] || { echo "apt has no Debian archive configured"; return 1; }
    mkdir -p "$work/lists/partial" "$work/cache"
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri trixie main" >"$work/sources.list"
    local apt=(apt-get -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
        -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=)
    "${apt[@]}" update
    (cd "$work" && "${apt[@]}" source --download-only "pgvector=$PGVECTOR_VERSION-1" && dpkg-source -x pgvector_*.dsc pgvector)
    make -C "$work/pgvector" OPTFLAGS="" PG_CONFIG=/usr/lib/postgresql/15/bin/pg_config -j"$(nproc)"
    sudo_if_needed make -C "$work/pgvector" OPTFLAGS="" PG_CONFIG=/usr/lib/postgresql/15/bin/pg_config install
    rm -rf "$work"
}

[ ! -e "$LOG" ] || [ -w "$LOG" ] || die "build/ belongs to $(stat -c %U "$LOG"): run make as that user, or remove build/ first"
: >"$LOG"
missing=$(missing_packages)
if [ -n "$missing" ]; then
    may_install
    say "Setting up: $(wc -w <<<"$missing") Debian packages"
    # shellcheck disable=SC2086
    step "installing $(tr '\n' ' ' <<<"$missing" | cut -c1-90)" install_packages $missing
fi
[ -f /usr/share/postgresql/15/extension/vector.control ] || step "building pgvector $PGVECTOR_VERSION" install_pgvector
[ ! -x scripts/fetch-model.sh ] || scripts/fetch-model.sh
[ -z "$missing" ] || say "Set-up is complete."

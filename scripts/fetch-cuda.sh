#!/usr/bin/env bash
# Puts a CUDA toolkit together below build/cuda from Python packages pinned by hash: enough to build the cuda plugin and, where there is a
# driver, to run it. Needs no GPU. Does nothing when it is there; about 1 GB, of which 600 MB are cuBLAS.
set -eu
. "$(dirname "$0")/lib.sh"
toolkit=$ROOT/build/cuda
list=scripts/cuda/requirements.txt
pin=$(sha256sum "$list" | cut -d' ' -f1)
[ "$(cat "$toolkit/.complete" 2>/dev/null)" != "$pin" ] || exit 0
[ "$(uname -m)" = x86_64 ] || die "the packaged CUDA toolkit is for x86-64: install NVIDIA's and set CUDA_HOME"
mkdir -p build
work=$(mktemp -d -p build .cuda-XXXXXX)
trap 'rm -rf "$work"' EXIT
say "  fetching the CUDA toolkit …"
python3 -m pip download -q --no-deps --no-cache-dir --disable-pip-version-check --only-binary :all: --require-hashes -d "$work" -r "$list" \
    >"$work/log" 2>&1 || { cat "$work/log" >&2; die "the CUDA packages of $list could not be fetched"; }
for wheel in "$work"/*.whl; do
    python3 -m zipfile -e "$wheel" "$work/unpacked"
    rm "$wheel"
done
new=$work/unpacked/nvidia/cu13
[ -f "$new/bin/nvcc" ] && [ -f "$new/lib/libcublas.so.13" ] || die "the CUDA packages are laid out in another way than expected"
# zipfile forgets permissions; nvcc looks for lib64; two libraries are of no use here.
chmod +x "$new"/bin/* "$new"/nvvm/bin/* 2>/dev/null || true
ln -sfn lib "$new/lib64"
rm -f "$new/lib/libnvblas.so.13" "$new/lib/libcudart.so.13"
printf '%s\n' "$pin" >"$new/.complete"
rm -rf "$toolkit"
mv "$new" "$toolkit"

#!/usr/bin/env bash
# The cuda backend's tests on a real GPU.
#   scripts/test-gpu.sh            builds plugin and tests here, and runs them
#   scripts/test-gpu.sh pack       builds them here and puts all that running needs, but cuBLAS and the model, into build/gpu-test
#   scripts/test-gpu.sh packed     runs what was packed: for a machine with a GPU but no compiler or libraries
# cuBLAS: OPSTREAM_CUBLAS, beside the plugin, or found on the machine. The model: OPSTREAM_MODEL_DIR or build/models; must be there.
set -eu
. "$(dirname "$0")/lib.sh"
program=build/plain/cuda_emu/bin/test_cuda
packed=build/gpu-test

build() {
    make -s cuda
    make -s -j2 "$program"
}
pack() {
    rm -rf "$packed"
    mkdir -p "$packed/lib"
    cp "$program" build/lib/libopstream-cuda.so "$packed"
    # glibc must be the machine's own; all else comes along.
    ldd "$program" | awk '$3 ~ /^\// && $1 !~ /^(libc|libm|libdl|libpthread|librt|libresolv)\.so/ {print $3}' |
        xargs -r -I{} cp -L {} "$packed/lib/"
    du -sh "$packed" | awk '{print "packed " $2 ", " $1}'
}
find_cublas() {
    [ -z "${OPSTREAM_CUBLAS:-}" ] && [ ! -e "$(dirname "$1")/libcublas.so.13" ] || return 0
    OPSTREAM_CUBLAS=$(find / -xdev \( -name libcublas.so.13 -o -name libcublas.so.12 \) -print -quit 2>/dev/null)
    [ -z "$OPSTREAM_CUBLAS" ] || export OPSTREAM_CUBLAS
}
run() { # PROGRAM PLUGIN
    export OPSTREAM_CUDA_PLUGIN=$2
    find_cublas "$2"
    command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version --format=csv,noheader || true
    local out
    out=$("$1" 2>&1) && grep -q '^\[  PASSED  \] [1-9]' <<<"$out" || { printf '%s\n' "$out"; die "the tests failed on this GPU"; }
    printf '%s\n' "$out"
}

case "${1:-}" in
"") build && run "$program" "$ROOT/build/lib/libopstream-cuda.so" ;;
pack) build && pack ;;
packed) LD_LIBRARY_PATH=$ROOT/$packed/lib run "$packed/test_cuda" "$ROOT/$packed/libopstream-cuda.so" ;;
*) die "usage: scripts/test-gpu.sh [pack|packed]" ;;
esac

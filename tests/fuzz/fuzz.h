/* libFuzzer's entry point; scripts/fuzz.sh builds and runs the targets. */
#pragma once

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

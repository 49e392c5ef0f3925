/* The release that both programs belong to. */
#pragma once

#define OPSTREAM_VERSION "0.1.0"

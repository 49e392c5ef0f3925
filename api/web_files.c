#include "api/web_files.h"

#include "common/base.h"

#include <string.h>
#include <strings.h>

/* The assembler reads the files, which is quicker than a compiler that reads arrays. The list gives each a number, of
 * which its symbols are made. */
#define INCLUDED(symbol, file)                                                                                         \
    __asm__(".pushsection .rodata\n.balign 16\n.hidden " symbol "\n.globl " symbol "\n" symbol ":\n.incbin \"" file    \
            "\"\n.byte 0\n.popsection\n");
#define EMBED(n, name, file, len, packed, packed_len, tag)                                                             \
    INCLUDED("web_file_" #n, file)                                                                                     \
    INCLUDED("web_packed_" #n, packed)                                                                                 \
    extern const unsigned char web_file_##n[] __attribute__((visibility("hidden")));                                   \
    extern const unsigned char web_packed_##n[] __attribute__((visibility("hidden")));
#include "build/web_files.def"
#undef EMBED

static const struct web_file files[] = {
#define EMBED(n, name, file, len, packed, packed_len, tag) {name, web_file_##n, len, web_packed_##n, packed_len, tag},
#include "build/web_files.def"
#undef EMBED
};

const struct web_file *web_file_find(const char *name)
{
    for (size_t i = 0; i < array_len(files); i++) {
        if (strcmp(files[i].name, name) == 0)
            return &files[i];
    }
    return NULL;
}

const struct web_file *web_file_all(size_t *out_count)
{
    *out_count = array_len(files);
    return files;
}

const char *web_content_type(const char *name)
{
    static const char *const types[][2] = {
        {".html", "text/html; charset=utf-8"},
        {".css", "text/css; charset=utf-8"},
        {".js", "text/javascript; charset=utf-8"},
        {".mjs", "text/javascript; charset=utf-8"},
        {".ts", "text/plain; charset=utf-8"},
        {".json", "application/json"},
        {".map", "application/json"},
        {".webmanifest", "application/manifest+json"},
        {".svg", "image/svg+xml"},
        {".png", "image/png"},
        {".jpg", "image/jpeg"},
        {".jpeg", "image/jpeg"},
        {".gif", "image/gif"},
        {".webp", "image/webp"},
        {".ico", "image/x-icon"},
        {".woff", "font/woff"},
        {".woff2", "font/woff2"},
        {".wasm", "application/wasm"},
        {".txt", "text/plain; charset=utf-8"},
    };
    const char *end = strrchr(name, '.');
    for (size_t i = 0; end && i < array_len(types); i++) {
        if (strcasecmp(end, types[i][0]) == 0)
            return types[i][1];
    }
    return "application/octet-stream";
}

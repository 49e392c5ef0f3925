#include "worker/extract/format.h"

#include <errno.h>
#include <iconv.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <uchardet/uchardet.h>

enum { GUESS_BYTES = 1 << 20, LOOK_BYTES = 1 << 16 };

/* Converters live in modules that cannot be loaded any more once a process is locked down. */
static struct converter {
    const char *name; /* as iconv knows it */
    iconv_t handle;
    bool is_open;
} converters[] = {
    {.name = "UTF-16LE"},     {.name = "UTF-16BE"},     {.name = "UTF-32LE"},     {.name = "UTF-32BE"},
    {.name = "WINDOWS-1252"}, {.name = "WINDOWS-1250"}, {.name = "WINDOWS-1251"}, {.name = "WINDOWS-1253"},
    {.name = "WINDOWS-1254"}, {.name = "WINDOWS-1255"}, {.name = "WINDOWS-1256"}, {.name = "WINDOWS-1257"},
    {.name = "WINDOWS-1258"}, {.name = "ISO-8859-2"},   {.name = "ISO-8859-3"},   {.name = "ISO-8859-4"},
    {.name = "ISO-8859-5"},   {.name = "ISO-8859-6"},   {.name = "ISO-8859-7"},   {.name = "ISO-8859-8"},
    {.name = "ISO-8859-9"},   {.name = "ISO-8859-10"},  {.name = "ISO-8859-11"},  {.name = "ISO-8859-13"},
    {.name = "ISO-8859-14"},  {.name = "ISO-8859-15"},  {.name = "ISO-8859-16"},  {.name = "KOI8-R"},
    {.name = "KOI8-U"},       {.name = "IBM852"},       {.name = "IBM855"},       {.name = "IBM866"},
    {.name = "MAC-CYRILLIC"}, {.name = "MACINTOSH"},    {.name = "TIS-620"},      {.name = "VISCII"},
    {.name = "CP932"},        {.name = "EUC-JP"},       {.name = "ISO-2022-JP"},  {.name = "GB18030"},
    {.name = "BIG5-HKSCS"},   {.name = "EUC-TW"},       {.name = "EUC-KR"},       {.name = "CP949"},
    {.name = "ISO-2022-KR"},
};

/* Names that people and uchardet use, and the wider set that contains it. */
static const char *const aliases[][2] = {
    {"ASCII", "WINDOWS-1252"},
    {"US-ASCII", "WINDOWS-1252"},
    {"ISO-8859-1", "WINDOWS-1252"},
    {"LATIN1", "WINDOWS-1252"},
    {"CP1252", "WINDOWS-1252"},
    {"CP1251", "WINDOWS-1251"},
    {"CP1250", "WINDOWS-1250"},
    {"SHIFT_JIS", "CP932"},
    {"SHIFT-JIS", "CP932"},
    {"SJIS", "CP932"},
    {"X-SJIS", "CP932"},
    {"WINDOWS-31J", "CP932"},
    {"GB2312", "GB18030"},
    {"GBK", "GB18030"},
    {"HZ-GB-2312", "GB18030"},
    {"BIG5", "BIG5-HKSCS"},
    {"UHC", "CP949"},
    {"KS_C_5601-1987", "CP949"},
    {"WINDOWS-949", "CP949"},
    {"ISO-8859-8-I", "ISO-8859-8"},
    {"ISO-8859-9", "WINDOWS-1254"},
    {"UTF-16", "UTF-16LE"},
    {"UTF-32", "UTF-32LE"},
    {"MAC-CENTRALEUROPE", "WINDOWS-1250"},
    {"WINDOWS-874", "TIS-620"},
    {"X-MAC-CYRILLIC", "MAC-CYRILLIC"},
};

static struct converter *find_converter(const char *name)
{
    for (size_t i = 0; i < array_len(aliases); i++) {
        if (strcasecmp(name, aliases[i][0]) == 0)
            name = aliases[i][1];
    }
    for (size_t i = 0; i < array_len(converters); i++) {
        struct converter *c = &converters[i];
        if (strcasecmp(name, c->name) != 0)
            continue;
        if (!c->is_open) {
            c->handle = iconv_open("UTF-8", c->name);
            c->is_open = c->handle != (iconv_t)-1; /* NOLINT(performance-no-int-to-ptr): iconv says no so */
        }
        return c->is_open ? c : NULL;
    }
    return NULL;
}

bool charset_load(void)
{
    for (size_t i = 0; i < array_len(converters); i++)
        find_converter(converters[i].name);
    return find_converter("WINDOWS-1252") != NULL; /* a libc may lack some; this one is the last resort */
}

void charset_unload(void)
{
    for (size_t i = 0; i < array_len(converters); i++) {
        if (converters[i].is_open)
            iconv_close(converters[i].handle);
        converters[i].is_open = false;
    }
}

static void convert(struct converter *c, const char *bytes, size_t len, struct text *out)
{
    char buffer[16384], *in = (char *)bytes;
    iconv(c->handle, NULL, NULL, NULL, NULL);
    while (len > 0 && !out->is_cut) {
        char *to = buffer;
        size_t room = sizeof buffer;
        size_t n = iconv(c->handle, &in, &len, &to, &room);
        int error = errno;
        text_append(out, buffer, (size_t)(to - buffer));
        if (n != (size_t)-1 || error == E2BIG)
            continue;
        text_puts(out, "\xEF\xBF\xBD");
        in++; /* EILSEQ, or EINVAL: cut at the end */
        len--;
    }
    char *to = buffer;
    size_t room = sizeof buffer;
    iconv(c->handle, NULL, NULL, &to, &room); /* what a stateful set still holds back */
    text_append(out, buffer, (size_t)(to - buffer));
}

/* By its byte order mark; *out_skip is the mark's length. */
static const char *marked(const char *bytes, size_t len, size_t *out_skip)
{
    static const struct {
        const char *mark;
        size_t len;
        const char *name;
    } marks[] = {{"\xEF\xBB\xBF", 3, "UTF-8"},
                 {"\xFF\xFE\0\0", 4, "UTF-32LE"},
                 {"\0\0\xFE\xFF", 4, "UTF-32BE"},
                 {"\xFF\xFE", 2, "UTF-16LE"},
                 {"\xFE\xFF", 2, "UTF-16BE"}};
    for (size_t i = 0; i < array_len(marks); i++) {
        if (len >= marks[i].len && memcmp(bytes, marks[i].mark, marks[i].len) == 0) {
            *out_skip = marks[i].len;
            return marks[i].name;
        }
    }
    *out_skip = 0;
    return NULL;
}

/* Text of mostly ASCII in UTF-16 without a mark: every other byte is 0. */
static const char *unmarked_utf16(const char *bytes, size_t len)
{
    size_t n = len < LOOK_BYTES ? len & ~(size_t)1 : LOOK_BYTES, even = 0, odd = 0;
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == 0)
            *(i % 2 ? &odd : &even) += 1;
    }
    if (n < 4)
        return NULL;
    if (odd * 2 > n / 2 && even * 20 < n / 2)
        return "UTF-16LE";
    return even * 2 > n / 2 && odd * 20 < n / 2 ? "UTF-16BE" : NULL;
}

/* Nearly all of what is not ASCII is valid UTF-8: damaged in places, not another set. */
static bool is_mostly_utf8(const char *bytes, size_t len)
{
    size_t good = 0, bad = 0;
    uint32_t cp;
    for (size_t i = 0, n; i < len; i += n ? n : 1) {
        n = utf8_next(bytes + i, len - i, &cp);
        good += n > 1;
        bad += n == 0;
    }
    return bad == 0 || good > bad * 10;
}

static bool has_escapes(const char *bytes, size_t len)
{
    const char *escape = memchr(bytes, 0x1B, len < LOOK_BYTES ? len : LOOK_BYTES);
    return escape && bytes + len - escape >= 3 && (escape[1] == '$' || (escape[1] == '(' && escape[2] == 'J'));
}

static struct converter *guess(const char *bytes, size_t len)
{
    uchardet_t u = uchardet_new();
    struct converter *c = NULL;
    if (u && uchardet_handle_data(u, bytes, len < GUESS_BYTES ? len : GUESS_BYTES) == 0) {
        uchardet_data_end(u);
        c = find_converter(uchardet_get_charset(u));
    }
    if (u)
        uchardet_delete(u);
    return c ? c : find_converter("WINDOWS-1252");
}

void charset_convert(const char *declared, const char *bytes, size_t len, struct text *out)
{
    size_t skip;
    const char *name = marked(bytes, len, &skip);
    bytes += skip;
    len -= skip;
    if (!name)
        name = unmarked_utf16(bytes, len);
    bool is_utf8 = name ? strcmp(name, "UTF-8") == 0 : !has_escapes(bytes, len) && is_mostly_utf8(bytes, len);
    struct converter *c = is_utf8 ? NULL : name ? find_converter(name) : declared ? find_converter(declared) : NULL;
    if (!is_utf8 && !c)
        c = guess(bytes, len);
    if (c)
        convert(c, bytes, len, out);
    else
        text_append_repaired(out, bytes, len);
}

bool charset_is_text(const char *bytes, size_t len)
{
    size_t skip, n = len < LOOK_BYTES ? len : LOOK_BYTES, controls = 0;
    if (marked(bytes, len, &skip) || unmarked_utf16(bytes, len))
        return true;
    for (size_t i = 0; i < n; i++) {
        unsigned char b = (unsigned char)bytes[i];
        if (b == 0)
            return false;
        controls += b < 0x20 && b != '\n' && b != '\r' && b != '\t' && b != '\f' && b != '\v' && b != 0x1B && b != '\b';
    }
    return controls * 50 <= n;
}

#include "api/relay/scan_list.h"

#include "common/clock.h"

#include <string.h>

void scan_list_init(struct scan_list *l, int64_t max_file_bytes, bool is_quiet)
{
    *l = (struct scan_list){.max_file_bytes = max_file_bytes, .is_quiet = is_quiet};
    json_open(&l->first, NULL, '[');
    json_open(&l->batch, NULL, '[');
    json_open(&l->warnings, NULL, '[');
}

void scan_list_done(struct scan_list *l)
{
    text_free(&l->first);
    text_free(&l->batch);
    text_free(&l->warnings);
}

/* Names are bytes, JSON is not. */
static void put_shown(struct text *json, const char *key, const struct source_file *file)
{
    scoped_text shown = {0};
    text_append_escaped(&shown, file->path, file->path_len);
    json_text(json, key, text_str(&shown));
}

static const char *extension_of(const struct source_file *file, size_t *out_len)
{
    const char *end = file->path + file->path_len;
    const char *slash = memrchr(file->path, '/', file->path_len);
    const char *name = slash ? slash + 1 : file->path;
    const char *dot = memrchr(name, '.', (size_t)(end - name));
    *out_len = dot && dot > name ? (size_t)(end - dot) : 0;
    return *out_len ? dot : "";
}

static void put_file(struct text *json, const struct source_file *file)
{
    char modified[32];
    size_t len;
    const char *extension = extension_of(file, &len);
    scoped_text shown = {0};
    text_append_escaped(&shown, extension, len);
    clock_iso_of_ns(file->mtime_ns, modified);
    json_open(json, NULL, '{');
    put_shown(json, "path", file);
    json_int(json, "size", file->size);
    json_text(json, "modified", modified);
    json_text(json, "extension", text_str(&shown));
    json_close(json, '}');
}

static void warn(struct scan_list *l, const char *problem, const struct source_file *file)
{
    scoped_text warning = {0};
    if (l->warning_count++ >= SCAN_MOST_WARNINGS)
        return;
    text_printf(&warning, "%s: ", problem);
    text_append_escaped(&warning, file->path, file->path_len);
    json_text(&l->warnings, NULL, warning.data);
}

void scan_list_add(struct scan_list *l, const struct source_file *file)
{
    if (file->problem) {
        warn(l, file->problem, file);
        return;
    }
    l->count++;
    l->total_size += file->size;
    if (l->max_file_bytes > 0 && file->size > l->max_file_bytes)
        warn(l, "it is larger than MAX_FILE_BYTES and would be recorded as failed", file);
    bool is_first = l->first_count == l->count - 1 && l->first_count < SCAN_FIRST_FILES;
    if (is_first && l->first.len < SCAN_FIRST_BYTES) {
        put_file(&l->first, file);
        l->first_count++;
    } else if (!l->is_quiet) {
        put_file(&l->batch, file);
        l->batch_count++;
    }
}

bool scan_list_take_batch(struct scan_list *l, bool is_last, struct text *out)
{
    bool is_full = l->batch_count >= SCAN_BATCH_FILES || l->batch.len >= SCAN_BATCH_BYTES;
    if (l->batch_count == 0 || !(is_full || is_last))
        return false;
    json_close(&l->batch, ']');
    json_open(out, NULL, '{');
    json_text(out, "type", "files");
    json_int(out, "from", l->first_count + l->streamed);
    json_raw(out, "files", l->batch.data);
    json_close(out, '}');
    l->streamed += l->batch_count;
    l->batch_count = 0;
    text_clear(&l->batch);
    json_open(&l->batch, NULL, '[');
    return true;
}

void scan_list_progress(const struct scan_list *l, const struct source_file *file, struct text *out)
{
    json_open(out, NULL, '{');
    json_text(out, "type", "progress");
    json_int(out, "scanned", l->count);
    json_int(out, "total", l->count); /* of those known so far */
    put_shown(out, "current_path", file);
    json_close(out, '}');
}

static void put_count(struct text *warnings, int64_t count, const char *what)
{
    scoped_text warning = {0};
    if (count <= 0)
        return;
    text_printf(&warning, "%lld %s", (long long)count, what);
    json_text(warnings, NULL, warning.data);
}

void scan_list_completed(struct scan_list *l, const char *end, struct text *out)
{
    if (end)
        json_text(&l->warnings, NULL, end);
    put_count(&l->warnings, l->count - l->first_count - l->streamed, "more files are not listed");
    put_count(&l->warnings, l->streamed, "more files were listed in frames of the type files");
    put_count(&l->warnings, l->hidden, "hidden entries (their names begin with a dot) are left out");
    put_count(&l->warnings, l->warning_count - SCAN_MOST_WARNINGS, "more warnings");
    json_close(&l->first, ']');
    json_close(&l->warnings, ']');
    json_open(out, NULL, '{');
    json_text(out, "type", "completed");
    json_raw(out, "files", l->first.data);
    json_int(out, "count", l->count);
    json_int(out, "total_size", l->total_size);
    json_int(out, "streamed", l->streamed);
    json_raw(out, "warnings", l->warnings.data);
    json_close(out, '}');
}

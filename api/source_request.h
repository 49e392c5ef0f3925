/* The source that a request names: its fields under all the names that clients use, checked against the kinds of
 * source, the configured roots and the user's grants. */
#pragma once

#include "api/request.h"

struct source_request {
    const char *type;            /* "directory" */
    const char *path;            /* as the client wrote it, without slashes at its end */
    const char *config_json;     /* source_config with its `path` */
    const char *additional_json; /* `config` of the request; NULL = none */
};

/* Whether the body names a source at all (creating a collection may). */
bool source_request_is_there(const cJSON *body);
/* STATUS_INVALID with what to do: unknown type, no path, a relative one, one outside OPSTREAM_SOURCE_ROOTS, one that is
 * not there (unless its root is not on this machine: workers may have it). STATUS_FORBIDDEN: SOURCE_ROOTS_FOR=granted
 * and the user has no grant for it. */
enum status source_request_read(struct request *r, struct source_request *out) must_check;
/* PATCH: what is to be changed of source_config, as a JSON object, checked in the same way. The path stays what it is;
 * STATUS_INVALID when another one is given, or nothing at all. */
enum status source_request_change(struct request *r, const char *path, const char **out_config) must_check;
/* The checks of the path alone, for whoever wants to look into a directory on a user's behalf (also the scan sockets,
 * from their own threads). */
enum status source_request_may_read(struct scope *sc, struct db *db, const struct settings *settings,
                                    const struct user *user, const char *path) must_check;
/* `config` of the operation that reads the source: {source_id, source_type, source_config, source_path,
 * additional_config}, into an open object. */
void source_request_config(struct text *t, const struct source_request *source, int64_t source_id);

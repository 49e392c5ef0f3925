/* Brings a database up to date: sql/migrations/NNNN_name.sql in their order, one transaction each, checksums recorded
 * in schema_migrations. Forward only. */
#pragma once

#include "common/db.h"
#include "common/text.h"

/* Applies what is missing under an advisory lock of its transactions, so that several may start at once. `report` (may
 * be NULL) gets one line a migration. `db` must have no statement time-out. STATUS_CONFLICT when an applied migration's
 * checksum is not the one of this program. */
enum status migrate_run(struct scope *sc, struct db *db, struct text *report) must_check;
/* STATUS_OK when the schema is this program's or newer; STATUS_UNAVAILABLE when it is older (the sentence says: run
 * opstream-api --migrate) or the database is away. */
enum status migrate_check(struct scope *sc, struct db *db) must_check;
/* The newest migration that this program knows. */
int migrate_newest(void);

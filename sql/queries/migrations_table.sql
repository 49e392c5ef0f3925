-- What was applied to this database; made by the program that migrates.
CREATE TABLE IF NOT EXISTS schema_migrations (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL, -- SHA-256 of the file
    applied_at timestamptz NOT NULL DEFAULT now()
)

-- $1 number, $2 name, $3 checksum
INSERT INTO schema_migrations (number, name, checksum) VALUES ($1::integer, $2::text, $3::text)

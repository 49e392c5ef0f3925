-- Applied migrations. $1 only this number, or null for all
SELECT number, name, checksum FROM schema_migrations WHERE $1::integer IS NULL OR number = $1::integer ORDER BY number

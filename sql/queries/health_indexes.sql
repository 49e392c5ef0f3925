-- Indexes that a broken-off build left behind: nobody uses them, every write keeps them up.
SELECT format('%I.%I', n.nspname, c.relname) AS index_name
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT i.indisvalid AND n.nspname IN ('public', 'vec') ORDER BY 1

-- The parts of chunks and the generations' tables: size, rows by the statistics, share of dead ones, and whether nobody has counted them yet.
-- pg_stat is a hint of the server's, never exact.
SELECT format('%I.%I', s.schemaname, s.relname) AS table_name, pg_total_relation_size(s.relid) AS bytes, s.n_live_tup AS live, s.n_dead_tup AS dead,
    s.last_analyze IS NULL AND s.last_autoanalyze IS NULL AND pg_relation_size(s.relid) > 0 AS lacks_statistics
FROM pg_stat_user_tables s
WHERE (s.schemaname = 'vec' AND s.relname <> 'g0') OR (s.schemaname = 'public' AND s.relname LIKE 'chunks\_%')
ORDER BY bytes DESC

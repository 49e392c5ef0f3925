-- Tables of vectors without a row in generations. $1 limit
SELECT substr(t.relname, 2)::bigint AS id, count(*) OVER () AS count FROM pg_class t
WHERE t.relnamespace = 'vec'::regnamespace AND t.relkind = 'r' AND t.relname ~ '^g[1-9][0-9]{0,17}$'
    AND NOT EXISTS (SELECT 1 FROM generations g WHERE 'g' || g.id = t.relname)
ORDER BY 1 LIMIT $1::integer

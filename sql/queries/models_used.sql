-- Models that live workers have or that collections use, with the dimension where a generation tells it.
-- $1 user id: only the names of their own collections are shown
SELECT m.model, bool_or(m.is_installed) AS is_installed,
    (SELECT max(g.dim) FROM generations g WHERE g.model = m.model) AS dim,
    (SELECT coalesce(json_agg(c.name ORDER BY c.name), '[]') FROM collections c
     WHERE c.embedding_model = m.model AND c.deleted_at IS NULL AND c.owner_id = $1::bigint) AS used_by
FROM (SELECT unnest(models) AS model, true AS is_installed FROM workers WHERE expires_at > now()
      UNION ALL
      SELECT embedding_model, false FROM collections WHERE deleted_at IS NULL AND owner_id = $1::bigint) m
GROUP BY m.model ORDER BY m.model

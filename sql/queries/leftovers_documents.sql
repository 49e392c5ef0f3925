-- Documents that a dead attempt left half written: no operation holds their collection any more. What a deleted collection left goes with
-- the rest of it; its vectors' tables may be gone already. $1 collection id or null for all,
-- $2 the attempt's own task (uuid) or null: its operation does not count as a holder; $3 limit
SELECT d.id, d.collection_id, d.next_version FROM documents d
WHERE d.status = 'processing' AND ($1::bigint IS NULL OR d.collection_id = $1::bigint)
  AND NOT EXISTS (SELECT 1 FROM operations o WHERE o.collection_id = d.collection_id AND o.mutates
      AND o.status = 'processing' AND o.task_id IS DISTINCT FROM $2::uuid)
  AND NOT EXISTS (SELECT 1 FROM collections c WHERE c.id = d.collection_id AND c.deleted_at IS NOT NULL)
ORDER BY d.id LIMIT $3::integer FOR NO KEY UPDATE OF d SKIP LOCKED

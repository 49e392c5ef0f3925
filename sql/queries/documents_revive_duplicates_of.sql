-- Duplicates of documents that were removed in this transaction: the first of each content becomes pending, the others its duplicates.
-- $1 collection id, $2 ids of the removed ones (bigint[])
WITH lost AS (
    SELECT d.id, first_value(d.id) OVER (PARTITION BY d.content_hash ORDER BY d.id) AS heir
    FROM documents d WHERE d.collection_id = $1::bigint AND d.duplicate_of = ANY ($2::bigint[]) AND d.status = 'completed'
), changed AS (
    UPDATE documents d SET
        duplicate_of = nullif(lost.heir, d.id), status = CASE WHEN lost.heir = d.id THEN 'pending' ELSE d.status END,
        updated_at = now()
    FROM lost WHERE d.id = lost.id
    RETURNING d.duplicate_of
)
SELECT count(*) FILTER (WHERE duplicate_of IS NULL) AS revived FROM changed

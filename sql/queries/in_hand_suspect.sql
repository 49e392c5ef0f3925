-- At the start of an attempt, in a fenced transaction: what earlier attempts that died had in hand is suspected. A row whose attempt ended
-- orderly says nothing. $1 operation uuid, $2 task id of the attempt that begins
WITH held AS (
    DELETE FROM in_hand h WHERE h.operation_uuid = $1::uuid AND h.task_id <> $2::uuid RETURNING h.task_id, h.document_ids
), died AS (
    SELECT h.document_ids, a.value ->> 'ended' = 'lease_lapsed' AS is_lost, cardinality(h.document_ids) = 1 AS is_alone
    FROM held h
    JOIN operations o ON o.uuid = $1::uuid
    JOIN LATERAL jsonb_array_elements(o.meta -> 'attempts') a ON a.value ->> 'task_id' = h.task_id::text
    WHERE a.value ->> 'ended' IN ('crash', 'silent', 'hard_limit', 'lease_lapsed')
)
UPDATE documents d SET is_suspected = true,
    crashes = d.crashes + (x.is_alone AND NOT x.is_lost)::integer,
    losses = d.losses + (x.is_alone AND x.is_lost)::integer
FROM died x
WHERE d.id = ANY (x.document_ids) AND d.status IN ('pending', 'processing')
RETURNING d.id

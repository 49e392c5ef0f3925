-- UUIDs of hits. $1 document row ids (bigint[])
SELECT d.id, d.uuid FROM documents d WHERE d.id = ANY ($1::bigint[]) ORDER BY d.id

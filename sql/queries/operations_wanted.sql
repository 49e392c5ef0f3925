-- Which of some UUIDs this worker could still take. $1 operation uuids (uuid[]), $2 known types (text[])
SELECT uuid FROM operations WHERE uuid = ANY ($1::uuid[]) AND status IS NOT DISTINCT FROM 'pending' AND not_before <= now() AND type = ANY ($2::text[])

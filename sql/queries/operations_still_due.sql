-- Those of some operations that are due and pending. $1 operation uuids (uuid[])
SELECT uuid, queue FROM operations WHERE uuid = ANY ($1::uuid[]) AND status = 'pending' AND not_before <= now()

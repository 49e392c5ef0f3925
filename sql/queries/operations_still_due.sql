-- Those of some operations that are due and pending. $1 operation uuids (uuid[])
-- Model: push what is due and absent.
SELECT uuid, queue FROM operations WHERE uuid = ANY ($1::uuid[]) AND status = 'pending' AND not_before <= now()

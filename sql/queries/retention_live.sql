-- Which of some operations are not at their end, or not announced. $1 uuids
SELECT uuid FROM operations WHERE uuid = ANY ($1::uuid[]) AND (status IN ('pending', 'processing') OR announced_at IS NULL)

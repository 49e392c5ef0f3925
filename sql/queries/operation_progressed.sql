-- Documents were committed: failures and crashes are counted from here on, and the counts of the whole operation are as true as its documents.
-- After the fence. $1 operation uuid, $2 processed, $3 failed
UPDATE operations SET failures = 0, processed = $2::bigint, failed = $3::bigint WHERE uuid = $1::uuid

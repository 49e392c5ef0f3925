-- Takes a failed document's old version out of sight, since its file is not that any more. $1 document id
UPDATE documents SET live_version = 0, chunk_count = 0, updated_at = now() WHERE id = $1::bigint

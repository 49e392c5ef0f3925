-- $1 generation id
UPDATE generations SET state = 'active', activated_at = now() WHERE id = $1::bigint

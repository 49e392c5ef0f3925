-- Readers that have it in hand may go on for a while. $1 generation id, $2 seconds
UPDATE generations SET state = 'retired', drop_after = now() + make_interval(secs => $2::float8) WHERE id = $1::bigint

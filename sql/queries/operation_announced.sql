-- The last event is out; not worth waiting for the disk: what is published twice is refused. $1 operation uuid
-- Model: announce.
UPDATE operations SET announced_at = now() WHERE uuid = $1::uuid AND announced_at IS NULL
RETURNING set_config('synchronous_commit', 'off', true) AS commits

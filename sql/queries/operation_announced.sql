-- The last event is out. $1 operation uuid
UPDATE operations SET announced_at = now() WHERE uuid = $1::uuid AND announced_at IS NULL

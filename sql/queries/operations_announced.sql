-- The last events of these operations are out. Lost in a power cut, they are published once more and refused. $1 operation uuids (uuid[])
-- Model: announced.
UPDATE operations SET announced_at = now() WHERE uuid = ANY ($1::uuid[]) AND announced_at IS NULL
RETURNING set_config('synchronous_commit', 'off', true) AS commits

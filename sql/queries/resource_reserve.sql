-- Reserves space for an operation that was accepted in this transaction, and notes the estimate with it.
-- $1 operation uuid, $2 bytes, $3 estimate (JSON)
WITH noted AS (
    UPDATE operations SET meta = meta || jsonb_build_object('estimate', $3::jsonb) WHERE uuid = $1::uuid RETURNING uuid
)
INSERT INTO reservations (operation_uuid, bytes) SELECT uuid, $2::bigint FROM noted

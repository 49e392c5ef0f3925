-- A projection to be built, in the transaction that accepts its operation. Its uuid is given, as the operation names it. No row: the collection has $9 already.
-- $1 uuid, $2 collection row id, $3 operation uuid, $4 user id, $5 method, $6 seed, $7 sample size, $8 color_by, $9 most of a collection, $10 parameters (JSON)
INSERT INTO projections (uuid, collection_id, operation_uuid, user_id, method, seed, sample_size, color_by, parameters)
SELECT $1::uuid, $2::bigint, $3::uuid, $4::bigint, $5::text, $6::bigint, $7::integer, $8::text, $10::jsonb
WHERE (SELECT count(*) FROM projections WHERE collection_id = $2::bigint) < $9::bigint
RETURNING uuid

-- A collection's first generation. $1 collection id, $2 model, $3 dim, $4 quantization
INSERT INTO generations (collection_id, model, dim, quantization, state, activated_at)
VALUES ($1::bigint, $2::text, $3::integer, $4::text, 'active', now())
RETURNING id

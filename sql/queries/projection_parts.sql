-- The arrays in their order, as bytes (to be asked for in binary). $1 projection row id
SELECT data FROM projection_parts WHERE projection_id = $1::bigint ORDER BY part

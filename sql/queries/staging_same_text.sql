-- How many of these chunks have exactly this text. $1 collection id, $2 chunk ids (bigint[]), $3 text
SELECT count(*) AS chunks FROM chunks WHERE collection_id = $1::bigint AND id = ANY ($2::bigint[]) AND content = $3::text

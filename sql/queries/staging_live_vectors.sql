-- How many vectors a generation has of what is visible. $1 collection id
SELECT count(*) AS vectors FROM vec.g0 v JOIN documents d ON d.id = v.document_id AND d.live_version = v.version
WHERE d.collection_id = $1::bigint

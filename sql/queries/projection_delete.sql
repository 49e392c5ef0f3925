-- With its arrays. $1 projection row id
DELETE FROM projections WHERE id = $1::bigint

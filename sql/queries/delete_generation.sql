-- Its table is gone. $1 generation id
DELETE FROM generations WHERE id = $1::bigint

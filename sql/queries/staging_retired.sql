-- The next retired generation whose time has come. $1 after id
SELECT id, collection_id FROM generations WHERE state = 'retired' AND drop_after <= now() AND id > $1::bigint ORDER BY id LIMIT 1

-- A document whose chunks need several transactions: until the last one its rows are unseen, and it is known to have some.
-- $1 document id
UPDATE documents SET status = 'processing', updated_at = now() WHERE id = $1::bigint

-- What attempts of operations that are over had in hand.
DELETE FROM in_hand h
WHERE NOT EXISTS (SELECT 1 FROM operations o WHERE o.uuid = h.operation_uuid AND o.status IN ('pending', 'processing'))

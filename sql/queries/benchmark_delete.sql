-- Unless its operation has not ended. $1 benchmark row id
DELETE FROM benchmarks b WHERE b.id = $1::bigint
    AND NOT EXISTS (SELECT FROM operations o WHERE o.uuid = b.operation_uuid AND o.status IN ('pending', 'processing'))

-- What an attempt works on. $1 operation uuid
SELECT b.id, b.uuid, b.dataset_id, b.repeats, b.collection_id FROM benchmarks b WHERE b.operation_uuid = $1::uuid

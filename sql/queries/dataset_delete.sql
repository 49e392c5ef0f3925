-- Unless a benchmark uses it (its results are of these queries). $1 dataset row id
DELETE FROM benchmark_datasets d WHERE d.id = $1::bigint AND NOT EXISTS (SELECT FROM benchmarks b WHERE b.dataset_id = d.id)

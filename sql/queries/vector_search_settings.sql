-- For the transaction of one search. $1 hnsw.ef_search
SELECT set_config('hnsw.ef_search', $1::text, true), set_config('jit', 'off', true)

-- Nobody can take the collection until the transaction ends; what is asked next sees who has. $1 collection row id
SELECT id, set_config('lock_timeout', '2s', true) AS patience FROM collections WHERE id = $1::bigint FOR NO KEY UPDATE

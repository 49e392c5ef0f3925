-- Internal URLs of workers that can embed with a model, in no order so that the load is spread. $1 model
SELECT url FROM workers WHERE expires_at > now() AND url IS NOT NULL AND $1::text = ANY (models)
ORDER BY draining, random() LIMIT 4

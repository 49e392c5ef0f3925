-- How many workers that can embed give signs of life.
SELECT count(*) AS workers FROM workers WHERE expires_at > now() AND NOT draining AND models <> '{}'

-- Which of these tasks hold their operation no longer (cancelled, swept). $1 task ids (uuid[])
-- Model: check rows.
SELECT t.id FROM unnest($1::uuid[]) AS t (id)
WHERE NOT EXISTS (SELECT 1 FROM operations o WHERE o.task_id = t.id AND o.status = 'processing')

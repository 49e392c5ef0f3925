-- A worker's last act. $1 worker id
DELETE FROM workers WHERE id = $1::text

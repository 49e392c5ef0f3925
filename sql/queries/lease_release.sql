-- Gives a singleton's lease back before its time. $1 name, $2 holder
DELETE FROM leases WHERE name = $1::text AND holder = $2::text

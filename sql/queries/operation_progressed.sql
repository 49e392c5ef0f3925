-- A document was committed: failures and crashes are counted from here on. After the fence. $1 operation uuid
UPDATE operations SET failures = 0 WHERE uuid = $1::uuid AND failures > 0

-- Of one that was set aside the suspicion stays: when somebody has it tried again, it goes alone. $1 document id, $2 reason, $3 category, $4 mime type,
-- $5 operation uuid, $6 set aside (boolean)
UPDATE documents SET status = 'failed', error_message = $2::text, error_category = $3::text, mime_type = $4::text, failed_by = $5::uuid,
    is_suspected = $6::boolean, crashes = 0, losses = 0, updated_at = now()
WHERE id = $1::bigint

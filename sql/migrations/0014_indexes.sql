DROP INDEX audit_log_created_at_idx; -- audit_log_by_time does what it did

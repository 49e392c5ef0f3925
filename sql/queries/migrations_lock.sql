-- One migrating program at a time, until its transaction ends. The number is arbitrary but must not change.
SELECT pg_advisory_xact_lock(7208310492375120301)

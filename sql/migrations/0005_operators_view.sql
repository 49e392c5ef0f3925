-- The history of attempts in operations.meta, bounded; keys of Idempotency-Key are found by age.

-- Adds the attempt that begins. The newest 20 are kept, `attempts_dropped` counts those before them. (Names `entry` once, so that the planner
-- puts the expression in place of the call.)
CREATE FUNCTION attempt_begun(meta jsonb, entry jsonb) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT jsonb_set(
    CASE WHEN jsonb_array_length(meta -> 'attempts') >= 20
         THEN jsonb_set(meta, '{attempts_dropped}', to_jsonb(coalesce((meta ->> 'attempts_dropped')::bigint, 0) + 1)) ELSE meta END,
    '{attempts}',
    CASE WHEN jsonb_array_length(meta -> 'attempts') >= 20 THEN (meta -> 'attempts') - 0 ELSE coalesce(meta -> 'attempts', '[]') END || entry) $$;

-- Notes how the newest attempt ended: completed, failed, cancelled, handed_back, …
CREATE FUNCTION attempt_ended(meta jsonb, ended text, error_class text, reason text) RETURNS jsonb LANGUAGE sql STABLE PARALLEL SAFE AS
$$ SELECT jsonb_set(meta, '{attempts,-1}', coalesce(meta #> '{attempts,-1}', '{}') || jsonb_build_object(
    'ended', ended, 'ended_at', to_iso(now()), 'error_class', error_class, 'reason', reason)) $$;

CREATE INDEX idempotency_keys_by_age ON idempotency_keys (created_at);

-- Puts the given fields into the given sections. $1 user id, $2 JSON {section: {field: value}}
UPDATE users SET preferences = preferences || jsonb_build_object(
    'search', coalesce(preferences -> 'search', '{}') || coalesce($2::jsonb -> 'search', '{}'),
    'collection_defaults', coalesce(preferences -> 'collection_defaults', '{}') || coalesce($2::jsonb -> 'collection_defaults', '{}'),
    'interface', coalesce(preferences -> 'interface', '{}') || coalesce($2::jsonb -> 'interface', '{}'),
    'updated_at', to_iso(now()))
WHERE id = $1::bigint RETURNING preferences, to_iso(created_at) AS created_at

-- $1 worker id, $2 host, $3 pid, $4 url, $5 models (text[]), $6 queues (text[]), $7 slots, $8 devices (text[]), $9 version, $10 lease seconds
INSERT INTO workers (id, host, pid, url, models, queues, slots, devices, version, expires_at)
VALUES ($1::text, $2::text, $3::integer, $4::text, $5::text[], $6::text[], $7::integer, $8::text[], $9::text,
        now() + make_interval(secs => $10::float8))
ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at, url = excluded.url, models = excluded.models,
    devices = excluded.devices

-- To be filled before the release that carries it.
SELECT 1;

-- Arrays of projections whose operation was cancelled, or failed, after they had been written: nobody sees them. The rows stay and tell what happened.
WITH ended AS (
    UPDATE projections p SET completed_at = NULL, point_count = NULL, legend = NULL, figures = NULL
    FROM operations o WHERE o.uuid = p.operation_uuid AND o.status IN ('cancelled', 'failed') AND p.completed_at IS NOT NULL
    RETURNING p.id
)
DELETE FROM projection_parts WHERE projection_id IN (SELECT id FROM ended)

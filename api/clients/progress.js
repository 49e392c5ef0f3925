/* What an operation's events say about how far it is: one object, made anew by every event. Pure functions, for pages and for react.js. */

const SMOOTHING_SECONDS = 10; // after this time two thirds of the rate are what was measured since
const SAMPLE_SECONDS = 0.25; // events of one batch have nearly the same time: a rate is measured over at least this

const STAGES = {
    operation_started: "starting",
    scanning_documents: "scanning",
    scanning_completed: "processing",
    processing_embeddings: "processing",
    document_processed: "processing",
    processing_progress: "processing",
    reindex_preflight: "checking",
    staging_created: "reprocessing",
    reprocessing_progress: "reprocessing",
    validation_complete: "validating",
    removing_documents: "removing",
    deleting: "removing",
};

const INITIAL = Object.freeze({
    operationId: null, collectionId: null, status: null, progress: null, processed: null, failed: null, total: null, currentFile: null, stage: null,
    rate: null, etaSeconds: null, error: null, result: null, hasEnded: false, updatedAt: null, sample: null,
});

/** Before the first event. */
export function initialProgress() {
    return INITIAL;
}

/** What is known after `event`, a frame as the client hands it out. `before` stays as it is. */
export function progressAfter(before, event) {
    const data = event.data ?? {};
    const status = before.hasEnded ? before.status : textOr(event.status ?? data.status, before.status); // after the final state its history may follow
    const hasEnded = ["completed", "failed", "cancelled"].includes(status);
    const isNew = status === "pending" || event.type === "operation_started"; // another attempt: what was counted is counted again
    const after = {
        ...before,
        operationId: textOr(event.operation_id, before.operationId),
        collectionId: textOr(event.collection_id, before.collectionId),
        status,
        hasEnded,
        progress: status === "completed" ? 100 : numberOr(event.progress ?? data.progress ?? data.progress_percent, before.progress),
        processed: numberOr(data.processed ?? data.removed, before.processed),
        failed: numberOr(data.failed, before.failed),
        total: numberOr(data.total ?? data.documents_to_process, before.total),
        currentFile: hasEnded ? null : textOr(data.current_file ?? data.current_document, before.currentFile),
        stage: stageAfter(before.stage, event, data, status, hasEnded),
        error: textOr(data.error_message, isNew && !hasEnded ? null : before.error),
        result: data.result ?? before.result,
        updatedAt: textOr(event.timestamp, before.updatedAt),
    };
    return Object.freeze({ ...after, ...pace(before, after, isNew || hasEnded) });
}

function textOr(value, other) {
    return typeof value === "string" ? value : other;
}

function numberOr(value, other) {
    return typeof value === "number" && Number.isFinite(value) ? value : other;
}

function stageAfter(before, event, data, status, hasEnded) {
    if (hasEnded || status === "pending") return status;
    if (event.type.endsWith("_completed") && !(event.type in STAGES)) return "finishing";
    return textOr(data.stage, STAGES[event.type] ?? before);
}

/* The smoothed rate, and from it how long the rest takes. A sample is where the last measurement ended. */
function pace(before, after, startsOver) {
    const seconds = Date.parse(after.updatedAt) / 1000, count = after.processed;
    const last = startsOver || after.stage !== before.stage || count < before.sample?.count ? null : before.sample;
    let rate = last ? before.rate : null, sample = last;
    if (Number.isFinite(seconds) && count !== null) {
        if (!last) sample = { seconds, count };
        else if (seconds - last.seconds >= SAMPLE_SECONDS && count > last.count) {
            const measured = (count - last.count) / (seconds - last.seconds);
            const weight = 1 - Math.exp(-(seconds - last.seconds) / SMOOTHING_SECONDS);
            rate = rate === null ? measured : rate + weight * (measured - rate);
            sample = { seconds, count };
        }
    }
    const isKnown = rate > 0 && after.total !== null && count !== null;
    return { rate, sample, etaSeconds: after.hasEnded ? 0 : isKnown ? Math.max(after.total - count, 0) / rate : null };
}

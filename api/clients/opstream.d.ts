/* Types of opstream.js, and of the events of Opstream's operations. Newer servers may send types of events that are not listed here: leave them be. */

export type OperationStatus = "pending" | "processing" | "completed" | "failed" | "cancelled";

export type OperationType =
    | "index"
    | "append"
    | "reindex"
    | "remove_source"
    | "delete"
    | "retry_documents"
    | "sync"
    | "projection_build"
    | "benchmark"
    | "migrate_vectors"
    | "noop";

export type ErrorClass = "transient" | "permanent" | "resource" | "cancelled" | "internal";

/** The class as it is told to people: `resource` counts as transient, `internal` as unknown. */
export type ErrorCategory = "transient" | "permanent" | "cancelled" | "unknown";

/** What every event's data has. */
export interface DataOfEvent {
    operation_id: string;
    /** Null when there is no collection (any more). */
    collection_id: string | null;
}

export interface CollectionStats {
    document_count: number;
    vector_count: number;
    total_size_bytes: number;
}

/** The operation as the database has it: the first frame of an operation's watch, and after every `history_truncated`. It has no id. */
export interface CurrentStateData extends DataOfEvent {
    status: OperationStatus;
    operation_type: OperationType;
    created_at: string;
    started_at: string | null;
    completed_at: string | null;
    error_message: string | null;
    progress: number;
}

/** Events before the next ones are not kept any more, or those that follow are of another life of the server's data. It has no id. */
export interface HistoryTruncatedData {
    operation_id?: string;
    reason: string;
}

export interface OperationStartedData extends DataOfEvent {
    status: "processing";
    type: OperationType;
    /** Rises with every try. */
    attempt: number;
}

export interface ScanningDocumentsData extends DataOfEvent {
    status: "scanning";
    stage: "scanning" | "removing";
    source?: string;
    files_found?: number;
    documents_removed?: number;
}

export interface ScanningCompletedData extends DataOfEvent {
    status: "processing";
    total_files_found: number;
    new_documents_registered: number;
    documents_updated: number;
    unchanged_documents_skipped: number;
    duplicate_documents_skipped: number;
    errors_count: number;
    documents_to_process: number;
    /** Seconds. */
    scan_duration: number;
    /** Of a sync. */
    added?: number;
    modified?: number;
    deleted?: number;
    unchanged?: number;
}

export interface CollectionStatsData extends DataOfEvent {
    stats: CollectionStats;
}

export interface ProcessingEmbeddingsData extends DataOfEvent {
    status: "processing";
    documents_to_process: number;
}

export interface DocumentProcessedData extends DataOfEvent {
    /** Documents that are done with, the failed ones among them. */
    processed: number;
    processed_files: number;
    failed: number;
    total: number;
    total_files: number;
    current_document: string;
    current_file: string;
    progress_percent: number;
    chunks_created: number;
    stats: CollectionStats;
    /** Why the current document failed. */
    error?: string;
}

export interface ProcessingProgressData extends DataOfEvent, Partial<Omit<DocumentProcessedData, keyof DataOfEvent>> {
    processed: number;
    total: number;
    message?: string;
    stage?: string;
    /** Of a benchmark that cuts anew. */
    documents_staged?: number;
    documents?: number;
}

/** Of `removing_documents` and `deleting`. */
export interface RemovingData extends DataOfEvent {
    removed: number;
    total: number;
    progress_percent?: number;
}

export interface ReindexPreflightData extends DataOfEvent {
    documents: number;
    vectors: number;
    embedding_model: string;
    quantization: string;
    dimension: number;
    chunks_change: boolean;
    vectors_can_be_reused: boolean;
    estimated_bytes: number;
    note?: string;
}

export interface StagingCreatedData extends DataOfEvent {
    generation: number;
    documents: number;
    documents_staged: number;
}

/** What a reindex has counted so far. */
export interface ReindexCounts {
    documents_unchanged: number;
    documents_cut_from_files: number;
    documents_cut_from_stored_text: number;
    documents_lost: number;
    vectors: number;
    chunks_reused: number;
    chunks_embedded: number;
}

export interface ReprocessingProgressData extends DataOfEvent, ReindexCounts {
    processed: number;
    failed: number;
    total: number;
    current_document: string | null;
}

/** The new vectors, tried before the switch. */
export interface ValidationCompleteData extends DataOfEvent {
    validation: {
        documents_expected: number;
        documents: number;
        vectors_expected: number;
        vectors: number;
        queries: number;
        /** Queries that found the text that they were made of. */
        found: number;
        k: number;
        self_retrieval: number;
        /** Of the results with those before the switch, if they can be compared. */
        overlap: number | null;
    };
}

/** The work is done and its last transaction is near: a summary, by type of operation. `operation_completed` follows. */
export interface SummaryData extends DataOfEvent {
    [member: string]: unknown;
}

interface LastData extends DataOfEvent {
    operation_type: OperationType;
    processed: number;
    failed: number;
    total: number | null;
}

export interface OperationCompletedData extends LastData {
    status: "completed";
    /** By type of operation. */
    result: Record<string, unknown> | null;
}

interface UnsuccessfulData extends LastData {
    error_message: string | null;
    error_class: ErrorClass | null;
    error_category: ErrorCategory | null;
}

export interface OperationFailedData extends UnsuccessfulData {
    status: "failed";
}

export interface OperationCancelledData extends UnsuccessfulData {
    status: "cancelled";
    /** What of its work stays. */
    message?: string | null;
}

/** Type of event to its data. */
export interface EventData {
    operation_started: OperationStartedData;
    scanning_documents: ScanningDocumentsData;
    scanning_completed: ScanningCompletedData;
    collection_stats: CollectionStatsData;
    processing_embeddings: ProcessingEmbeddingsData;
    document_processed: DocumentProcessedData;
    processing_progress: ProcessingProgressData;
    removing_documents: RemovingData;
    deleting: RemovingData;
    reindex_preflight: ReindexPreflightData;
    staging_created: StagingCreatedData;
    reprocessing_progress: ReprocessingProgressData;
    validation_complete: ValidationCompleteData;
    index_completed: SummaryData;
    append_completed: SummaryData;
    reindex_completed: SummaryData;
    remove_source_completed: SummaryData;
    delete_completed: SummaryData;
    retry_documents_completed: SummaryData;
    sync_completed: SummaryData;
    projection_build_completed: SummaryData;
    benchmark_completed: SummaryData;
    operation_completed: OperationCompletedData;
    operation_failed: OperationFailedData;
    operation_cancelled: OperationCancelledData;
}

interface Frame<Type extends string, Data> {
    type: Type;
    /** ISO 8601, UTC. */
    timestamp: string;
    data: Data;
}

/** An event of an operation's history. */
export interface HistoryEvent<Type extends keyof EventData> extends Frame<Type, EventData[Type]> {
    /** Opaque; an operation's ids only rise. */
    id: string;
    operation_id: string;
    collection_id: string | null;
    /** The operation's, at that moment. */
    status: OperationStatus;
    /** 0 to 100; null when nobody knows. */
    progress: number | null;
}

export interface CurrentState extends Frame<"current_state", CurrentStateData> {
    id?: undefined;
    operation_id: string;
    collection_id: string | null;
    status: OperationStatus;
    progress: number;
}

export interface HistoryTruncated extends Frame<"history_truncated", HistoryTruncatedData> {
    id?: undefined;
    operation_id?: string;
    collection_id?: undefined;
    status?: undefined;
    progress?: undefined;
}

/** Whatever is handed to onEvent: `switch (event.type)` tells what `event.data` is. */
export type OperationEvent = { [Type in keyof EventData]: HistoryEvent<Type> }[keyof EventData] | CurrentState | HistoryTruncated;

/** The events that end an operation. */
export type LastEvent = HistoryEvent<"operation_completed"> | HistoryEvent<"operation_failed"> | HistoryEvent<"operation_cancelled">;

/** live: a WebSocket; polling: requests, because WebSockets do not get through; waiting: for the next attempt. */
export type ConnectionState = "connecting" | "live" | "polling" | "waiting" | "closed";

export class OpstreamError extends Error {
    /** A WebSocket's close code, an HTTP status, "token" when getToken failed, or null. */
    readonly code: number | "token" | null;
    /** The watch has ended by it. */
    readonly isFinal: boolean;
    readonly cause?: unknown;
}

/** Seconds and milliseconds that hardly anybody needs to change. */
export interface ClientSettings {
    /** The server's WS_HEARTBEAT_INTERVAL (30). After 2.5 of them in silence a connection is given up. */
    heartbeatSeconds?: number;
    handshakeSeconds?: number;
    /** The first reconnect comes after a random time between these ([250, 1000]); the upper one doubles with every attempt. */
    firstDelayMs?: readonly [number, number];
    maxDelayMs?: number;
    /** A connection that lived for so long (5) makes the delays start over. */
    stableSeconds?: number;
    /** After so many WebSockets in a row in vain (3) it polls. */
    socketAttempts?: number;
    /** How often it tries a WebSocket while it polls (60). */
    socketRetrySeconds?: number;
    /** How long the server may hold a poll back (25). */
    pollSeconds?: number;
    /** How long a finished operation's last event is waited for when it may not be kept any more (10). */
    settleSeconds?: number;
}

export interface ClientOptions extends ClientSettings {
    /** Where the API is, with its path if it has one; empty: where the page comes from. */
    baseUrl?: string;
    /** An access token or an API key. It is asked before every connection and every poll, so keep the token while it is good. isRefused: the server did
     * not take the one that it gave before. */
    getToken?: (about: { isRefused: boolean }) => string | null | undefined | Promise<string | null | undefined>;
    /** For Node.js before 22, or tests: the class to use. Without one it polls. */
    WebSocket?: typeof globalThis.WebSocket | (new (url: string, protocols?: string[]) => unknown) | null;
    fetch?: typeof globalThis.fetch;
}

export interface AllWatchOptions {
    /** Go on after this event. */
    lastId?: string | null;
    onEvent?: (event: OperationEvent) => void;
    onConnection?: (state: ConnectionState) => void;
    /** What went wrong; `error.isFinal`: and ended the watch. What goes on being wrong is told once. An outage is no error, onConnection tells of it. */
    onError?: (error: OpstreamError) => void;
}

export interface WatchOptions extends AllWatchOptions {
    /** The operation has ended, and so has the watch. The event is its last one; or its `current_state`, if the last one is not kept any more; or null, if
     * the watch began after it. */
    onEnd?: (event: LastEvent | CurrentState | null) => void;
}

export interface Watch {
    /** The newest event's id. */
    readonly lastId: string | null;
    readonly connection: ConnectionState;
    /** When the next attempt is due. */
    readonly retryAt: Date | null;
    /** Tries now instead of waiting. */
    reconnect(): void;
    /** May be called at any time and more than once. */
    close(): void;
}

export class OpstreamClient {
    constructor(options?: ClientOptions);
    /** One operation: its state, its history (or what follows `lastId`), and what happens. */
    watchOperation(operationId: string, options?: WatchOptions): Watch;
    /** All operations of the user: what happens from now on, or what follows `lastId`. */
    watchOperations(options?: AllWatchOptions): Watch;
}

/* Types of react.js. */
import type { ConnectionState, OperationEvent, OpstreamClient, OpstreamError } from "./opstream.js";
import type { OperationProgress } from "./progress.js";

export interface WatchedOperation extends OperationProgress {
    /** Why the operation failed, or why it cannot be watched. */
    readonly error: string | null;
    readonly connection: ConnectionState;
    readonly connectionError: OpstreamError | null;
    /** The newest 100, oldest first. */
    readonly events: readonly OperationEvent[];
}

/** How far an operation is; without an id or a client it waits for one. Keep the client outside of the component, or in useMemo. */
export function useOperationProgress(operationId: string | null | undefined, client: OpstreamClient | null | undefined): WatchedOperation;

export interface WatchedOperations {
    /** By id, the one that was heard of last comes last; 200 at most. */
    readonly operations: Readonly<Record<string, OperationProgress>>;
    readonly lastEvent: OperationEvent | null;
    readonly connection: ConnectionState;
    readonly connectionError: OpstreamError | null;
}

/** All operations of the user of which something was heard since the component shows. */
export function useOperations(client: OpstreamClient | null | undefined): WatchedOperations;

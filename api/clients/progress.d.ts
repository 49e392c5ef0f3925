/* Types of progress.js. */
import type { OperationEvent, OperationStatus } from "./opstream.js";

export interface OperationProgress {
    readonly operationId: string | null;
    readonly collectionId: string | null;
    /** Null before the first event, like all that is not known yet. */
    readonly status: OperationStatus | null;
    /** 0 to 100. */
    readonly progress: number | null;
    /** Documents that are done with, the failed ones among them. */
    readonly processed: number | null;
    readonly failed: number | null;
    readonly total: number | null;
    readonly currentFile: string | null;
    /** starting, scanning, processing, checking, reprocessing, validating, removing, finishing, another word of the server's, or the final status. */
    readonly stage: string | null;
    /** Processed per second, smoothed. */
    readonly rate: number | null;
    readonly etaSeconds: number | null;
    /** Why it failed or was cancelled. */
    readonly error: string | null;
    readonly result: Record<string, unknown> | null;
    readonly hasEnded: boolean;
    /** The newest event's timestamp. */
    readonly updatedAt: string | null;
}

/** Before the first event. */
export function initialProgress(): OperationProgress;

/** What is known after `event`; `before` stays as it is. */
export function progressAfter(before: OperationProgress, event: OperationEvent): OperationProgress;

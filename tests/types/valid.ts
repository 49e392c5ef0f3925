// Uses of the JavaScript client that must compile; tests/e2e/test_js_types.py tries.
import { OpstreamClient, OpstreamError } from "@opstream/client";
import type { ConnectionState, OperationEvent, Watch } from "@opstream/client";
import { initialProgress, progressAfter } from "@opstream/client/progress";
import { useOperationProgress, useOperations } from "@opstream/client/react";

const client = new OpstreamClient({
    baseUrl: "https://opstream.example",
    getToken: async ({ isRefused }) => (isRefused ? "fresh" : "kept"),
    maxDelayMs: 10000,
});
new OpstreamClient();
new OpstreamClient({ getToken: () => null, WebSocket: null });

function told(event: OperationEvent): string {
    switch (event.type) {
        case "document_processed":
            return `${event.data.processed} of ${event.data.total}, ${event.data.current_file}, ${event.data.stats.vector_count} vectors`;
        case "scanning_completed":
            return `${event.data.total_files_found} files in ${event.data.scan_duration.toFixed(1)} s`;
        case "removing_documents":
        case "deleting":
            return `${event.data.removed} of ${event.data.total} removed`;
        case "operation_completed":
            return Object.keys(event.data.result ?? {}).join();
        case "operation_failed":
        case "operation_cancelled":
            return `${event.data.error_message ?? "no reason"} (${event.data.error_category ?? "unknown"})`;
        case "current_state":
            return event.data.started_at ?? event.status;
        case "history_truncated":
            return event.data.reason;
        default: {
            const id: string = event.id; // of every event that is kept
            return `${id} ${event.status} ${event.progress?.toFixed() ?? "?"} %`;
        }
    }
}

let progress = initialProgress();
const watch: Watch = client.watchOperation("2d5c1c9e-0000-4000-8000-000000000000", {
    lastId: null,
    onEvent: (event) => {
        progress = progressAfter(progress, event);
        told(event);
    },
    onConnection: (state: ConnectionState) => state === "polling",
    onEnd: (event) => event?.status,
    onError: (error) => error instanceof OpstreamError && error.isFinal && error.code === 1008,
});
const all = client.watchOperations({ lastId: watch.lastId, onEvent: told });
all.retryAt?.getTime();
all.reconnect();
all.close();

export function Shown(id: string | undefined): string {
    const { status, processed, total, rate, etaSeconds, stage, currentFile, error, connection, events } = useOperationProgress(id, client);
    const known: string[] = Object.values(useOperations(client).operations).map((o) => o.status ?? "");
    return [status, processed, total, rate?.toFixed(1), etaSeconds, stage, currentFile, error, connection, events.length, ...known].join();
}

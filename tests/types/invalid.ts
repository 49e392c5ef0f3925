// Every line that ends with a remark must not compile, and no other; tests/e2e/test_js_types.py compares.
import { OpstreamClient } from "@opstream/client";
import type { OperationEvent } from "@opstream/client";
import { initialProgress } from "@opstream/client/progress";
import { useOperationProgress } from "@opstream/client/react";

const client = new OpstreamClient({ baseurl: "x" }); // wrong: a name that is not known
new OpstreamClient({ getToken: async () => 5 }); // wrong: a token is text
client.watchOperation(5); // wrong: an id is text
client.watchOperations({ onEnd: () => {} }); // wrong: the user's operations have no end
client.watchOperation("id", { onConnection: (state) => state === "open" }); // wrong: no such state

export function told(event: OperationEvent): number {
    event.data.processed; // wrong: not every event has it
    if (event.type === "document_finished") return 0; // wrong: no such event
    if (event.type === "document_processed") return event.data.removed; // wrong: it belongs to another event
    if (event.type === "operation_failed") return event.data.result; // wrong: a failure has none
    if (event.type === "current_state") return event.id; // wrong: it has no id
    return event.progress; // wrong: nobody may know
}

initialProgress().processed = 5; // wrong: it is made anew
useOperationProgress(7, client); // wrong: an id is text
client.watchOperation("id").lastId = "x"; // wrong: it is told, not set

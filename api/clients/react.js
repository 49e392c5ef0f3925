/* React hooks on top of opstream.js. React itself is the page's. */
import { useEffect, useState } from "react";
import { initialProgress, progressAfter } from "./progress.js";

const KEPT_EVENTS = 100;
const KEPT_OPERATIONS = 200;
const RENDER_MS = 50; // events come faster than anybody can see

/* Collects changes and hands them on at most every RENDER_MS, the first one at once. */
function throttled(apply) {
    let changes = [], timer = null;
    const flush = () => {
        timer = null;
        if (changes.length === 0) return;
        const taken = changes;
        changes = [];
        timer = setTimeout(flush, RENDER_MS);
        apply((state) => taken.reduce((s, change) => change(s), state));
    };
    return {
        push(change) {
            changes.push(change);
            if (timer === null) flush();
        },
        stop() {
            clearTimeout(timer);
            timer = null;
            changes = [];
        },
    };
}

function withConnection(state, connection) {
    const isWell = connection === "live" || connection === "polling";
    return { ...state, connection, connectionError: isWell ? null : state.connectionError };
}

/* Watches `target` as long as the component shows it. `start` gives the watch for the callbacks, `onEvent` is a pure (state, event) => state. */
function useWatch(client, target, start, onEvent, initial) {
    const [held, setHeld] = useState({ state: initial });
    useEffect(() => {
        if (!client || !target) return undefined;
        const watched = { client, target }; // of this watch alone: another one of the same target hears its history anew
        const changes = throttled((change) => setHeld((before) => ({ watched, state: change(before.watched === watched ? before.state : initial) })));
        const watch = start({
            onEvent: (event) => changes.push((state) => onEvent(state, event)),
            onConnection: (connection) => changes.push((state) => withConnection(state, connection)),
            onError: (error) => changes.push((state) => ({ ...state, connectionError: error })),
        });
        return () => {
            changes.stop(); // before close(), which tells that the connection is closed
            watch.close();
        };
    }, [client, target]);
    // What was held of another target is not shown even once.
    return held.watched?.client === client && held.watched.target === target ? held.state : initial;
}

const WATCHED = Object.freeze({ progress: initialProgress(), connection: "connecting", connectionError: null, events: Object.freeze([]) });

function withEvent(state, event) {
    return { ...state, progress: progressAfter(state.progress, event), events: [...state.events, event].slice(-KEPT_EVENTS) };
}

/** How far an operation is. Without an operationId or a client it waits for one. */
export function useOperationProgress(operationId, client) {
    const start = (callbacks) => client.watchOperation(operationId, callbacks);
    const { progress, connection, connectionError, events } = useWatch(client, operationId, start, withEvent, WATCHED);
    const { sample, ...shown } = progress;
    return { ...shown, error: shown.error ?? (connectionError?.isFinal ? connectionError.message : null), connection, connectionError, events };
}

const ALL_WATCHED = Object.freeze({ operations: Object.freeze({}), connection: "connecting", connectionError: null, lastEvent: null });

function withEventOfAny(state, event) {
    const id = event.operation_id ?? event.data?.operation_id;
    if (!id) return { ...state, lastEvent: event };
    const { [id]: before = initialProgress(), ...others } = state.operations;
    const names = Object.keys(others);
    if (names.length >= KEPT_OPERATIONS) delete others[names.find((name) => others[name].hasEnded) ?? names[0]];
    return { ...state, lastEvent: event, operations: { ...others, [id]: progressAfter(before, event) } };
}

/** All operations of the user of which something was heard since the component shows, by id, the newest last. */
export function useOperations(client) {
    return useWatch(client, "all", (callbacks) => client.watchOperations(callbacks), withEventOfAny, ALL_WATCHED);
}

// What happens to operations, in words: for screen readers as they go on, for everyone when they end.

import { live } from "./live.js";
import { notice, say } from "./notices.js";
import { outcomeOf, percentOf, titleOf } from "./operation.js";
import { store } from "./store.js";
import { state } from "./words.js";

const quarters = new Map(); // operation -> how many were told

function tellQuarters() {
  const running = store.live();
  for (const operation of running) {
    const quarter = Math.floor((percentOf(operation) ?? 0) / 25);
    const told = quarters.get(operation.id) ?? 0;
    if (quarter > told && quarter < 4) say(`${titleOf(operation)}: ${quarter * 25} percent`);
    if (quarter > told) quarters.set(operation.id, quarter);
  }
  for (const id of quarters.keys()) {
    if (!running.some((operation) => operation.id === id)) quarters.delete(id);
  }
}

export function announce() {
  store.addEventListener("change", tellQuarters);
  live.addEventListener("ended", ({ detail: operation }) => {
    const isBad = operation.status === "failed";
    notice(`${titleOf(operation)}. ${state(operation.status)}: ${outcomeOf(operation)}`, { isBad });
  });
}

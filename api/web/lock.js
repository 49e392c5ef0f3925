// One tab at a time. Browsers offer locks to secure origins only; elsewhere tabs take a lease in the storage that they share.

const LEASE_MS = 10000;
const SETTLE_MS = 60;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function underLease(name, work) {
  const me = Math.random().toString(36).slice(2);
  for (;;) {
    const held = JSON.parse(localStorage.getItem(name) ?? "null");
    if (!held || held.until < Date.now()) {
      localStorage.setItem(name, JSON.stringify({ me, until: Date.now() + LEASE_MS }));
      await pause(SETTLE_MS); // whoever wrote last has it
      if (JSON.parse(localStorage.getItem(name) ?? "null")?.me === me) break;
    }
    await pause(SETTLE_MS + Math.random() * SETTLE_MS);
  }
  try {
    return await work();
  } finally {
    localStorage.removeItem(name);
  }
}

export function alone(name, work) {
  return navigator.locks ? navigator.locks.request(name, work) : underLease(name, work);
}

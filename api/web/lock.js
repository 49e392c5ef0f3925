// One tab at a time. Browsers offer locks to secure origins only; elsewhere tabs take a lease in the storage that they share.

const LEASE_MS = 90000; // more than the minute for which browsers may hold back the timers of tabs that nobody looks at
const RENEW_MS = LEASE_MS / 3;
const SETTLE_MS = 60;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function underLease(key, work) {
  const me = Math.random().toString(36).slice(2);
  const lease = () => JSON.parse(localStorage.getItem(key) ?? "null");
  const isMine = () => lease()?.me === me;
  const take = () => localStorage.setItem(key, JSON.stringify({ me, until: Date.now() + LEASE_MS }));
  const renew = () => isMine() && take();
  const giveBack = () => isMine() && localStorage.removeItem(key);
  for (;;) {
    const held = lease();
    if (!held || held.until < Date.now()) {
      take();
      await pause(SETTLE_MS); // whoever wrote last has it
      if (isMine()) break;
    }
    await pause(SETTLE_MS + Math.random() * SETTLE_MS);
  }
  renew(); // that pause may have been long
  const timer = setInterval(renew, RENEW_MS);
  window.addEventListener("pagehide", giveBack);
  try {
    return await work();
  } finally {
    clearInterval(timer);
    window.removeEventListener("pagehide", giveBack);
    giveBack();
  }
}

/** What `work` gives; nobody else works under that name meanwhile. */
export function alone(name, work) {
  return navigator.locks ? navigator.locks.request(name, work) : underLease(name + ".lock", work);
}

// Numbers, sizes and times as people read them.

const whole = new Intl.NumberFormat();
const tenths = new Intl.NumberFormat(undefined, { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });
const full = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

export function count(n) {
  return n == null ? "–" : whole.format(n);
}

/** "1 document", "1,204 documents" */
export function counted(n, one, many = one + "s") {
  return `${count(n)} ${n === 1 ? one : many}`;
}

export function bytes(n) {
  if (n == null) return "–";
  const units = ["B", "kB", "MB", "GB", "TB", "PB"];
  let unit = 0;
  while (n >= 999.5 && unit < units.length - 1) {
    n /= 1000;
    unit++;
  }
  return `${unit && n < 99.5 ? tenths.format(n) : whole.format(Math.round(n))} ${units[unit]}`;
}

export function percent(n) {
  return n == null ? "" : `${Math.floor(n)} %`;
}

/** Documents a second. */
export function rate(n) {
  if (n == null) return "–";
  return `${n >= 100 ? whole.format(Math.round(n)) : tenths.format(n)}/s`;
}

/** "0:07", "12:45", "3:07:00" */
export function duration(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "–";
  const s = Math.max(0, Math.round(seconds));
  const two = (n) => String(n).padStart(2, "0");
  const minutes = Math.floor(s / 60);
  return minutes < 60 ? `${minutes}:${two(s % 60)}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${two(s % 60)}`;
}

/** "7.2 s", "2 min 58 s", "3 h 7 min": how long something took. */
export function span(seconds) {
  if (seconds == null || !Number.isFinite(seconds)) return "";
  if (seconds < 9.95) return `${tenths.format(Math.max(0, seconds))} s`;
  const s = Math.round(seconds);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${s % 60} s`;
  return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
}

export function milliseconds(n) {
  return n == null ? "" : `${n < 10 ? tenths.format(n) : whole.format(Math.round(n))} ms`;
}

/** "just now", "5 min ago", "14:03", "24 Nov, 14:03" */
export function ago(iso, now = Date.now()) {
  const at = Date.parse(iso);
  if (Number.isNaN(at)) return "";
  const seconds = (now - at) / 1000;
  if (seconds < 45) return "just now";
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))} min ago`;
  if (seconds < 12 * 3600) return `${Math.round(seconds / 3600)} h ago`;
  return day.format(at);
}

export function timeOfDay(iso) {
  const at = Date.parse(iso);
  return Number.isNaN(at) ? "" : clock.format(at);
}

export function exact(iso) {
  const at = Date.parse(iso);
  return Number.isNaN(at) ? "" : full.format(at);
}

export function seconds(fromIso, toIso) {
  const from = Date.parse(fromIso);
  const to = Date.parse(toIso);
  return Number.isNaN(from) || Number.isNaN(to) ? null : (to - from) / 1000;
}

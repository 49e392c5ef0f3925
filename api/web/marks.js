// The words of a query, marked where a text has them.

import { h } from "./dom.js";

const LEAST = 3; // letters; shorter words stand everywhere

const usual = new Set("the and for are was were with that this from what when where which who how does did has have had not but you your its his her their our they them there then than can will into about".split(" "));

const bare = (word) => word.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();

/** Words that mean something; those of a plural and of its singular begin alike. */
function stems(query) {
  const words = (query.match(/[\p{L}\p{N}]+/gu) ?? []).map(bare).filter((word) => word.length >= LEAST && !usual.has(word));
  return [...new Set(words.map((word) => (word.length > 4 ? word.replace(/(es|s|ed|ing)$/, "") : word)))];
}

/** The text in pieces, as strings and <mark>s. */
export function marked(text, query) {
  const wanted = stems(query);
  if (wanted.length === 0) return [text];
  const pieces = [];
  let from = 0;
  for (const match of text.matchAll(/[\p{L}\p{N}\p{M}]+/gu)) {
    const word = bare(match[0]);
    if (!wanted.some((stem) => word.startsWith(stem) && word.length <= stem.length + 4)) continue;
    pieces.push(text.slice(from, match.index), h("mark", null, match[0]));
    from = match.index + match[0].length;
  }
  pieces.push(text.slice(from));
  return pieces;
}

// What the engine is doing, asked for the whole page once and told to all who listen.

import { askJson, pause } from "./api.js";

const SOON = 1000;
const LATER = 5000;
const listeners = new Set();
let told = null; // the last answer of /v1/capacity, or {lost: true, last}

/** Calls back now, if anything is known, and at every change; returns what ends that. */
export function listen(callback) {
  listeners.add(callback);
  if (told) callback(told);
  return () => listeners.delete(callback);
}

function tell(answer) {
  told = answer;
  for (const callback of listeners) callback(told);
}

/** Never ends; rests while nobody looks. */
export async function watch() {
  for (;;) {
    try {
      tell(await askJson("v1/capacity"));
    } catch (problem) {
      const last = told?.lost ? told.last : told;
      tell({ lost: problem.status === 0, problem, last });
    }
    await pause(told.state === "ready" || told.state === "asleep" ? LATER : SOON);
    while (document.hidden) await pause(SOON);
  }
}

// Requests to the HTTP API beside the page, and what can go wrong with them.

export const root = new URL("../../", import.meta.url); // this file is at ROOT/ui/own/
const PATIENCE = 20000; // ms

/** What the API says is wrong: its code, its own words, and the HTTP status (0: it could not be asked). */
export class Problem extends Error {
  constructor(code, message, status) {
    super(message);
    [this.code, this.status] = [code, status];
  }
}

/** The answer to a request. Throws a Problem. */
export async function ask(path, method = "GET") {
  let response;
  try {
    response = await fetch(new URL(path, root), { method, signal: AbortSignal.timeout(PATIENCE) });
  } catch {
    throw new Problem("connection_lost", "", 0);
  }
  if (response.ok) return response;
  const error = await response.json().then((body) => body.error ?? {}, () => ({}));
  // A proxy in front says 502 to 504 in its own way while the service is away.
  if (!error.message && response.status >= 502) throw new Problem("connection_lost", "", 0);
  throw new Problem(error.code ?? "", error.message ?? `HTTP ${response.status}`, response.status);
}

export async function askJson(path, method = "GET") {
  const response = await ask(path, method);
  try {
    return await response.json();
  } catch {
    throw new Problem("connection_lost", "", 0); // it ended in the middle
  }
}

export const job = (id) => `v1/jobs/${encodeURIComponent(id)}`;
export const result = (id, format) => `${job(id)}/result?format=${format}`;
export const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

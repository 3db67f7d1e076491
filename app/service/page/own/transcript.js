// The text of a job with its times: each line can be played, the line that sounds is marked, hot words are reported.

import { askJson, result } from "./api.js";
import { h } from "./dom.js";
import { problemBox } from "./problem.js";
import { clock, t } from "./texts.js";

const AT_ONCE = 200; // lines in a group; the browser lays out only the groups that are in sight
const SHOWN_WORDS = 30;

/** Fills `room` with the transcript; `media` is where the recording can be played, or "". */
export async function transcript(room, id, name, media) {
  let told;
  try {
    told = await askJson(result(id, "json"));
  } catch (problem) {
    room.replaceChildren(problemBox(problem.code, problem.message));
    return;
  }
  const details = { duration: clock(told.duration), model: told.model, precision: told.precision };
  const player = media ? makePlayer(media, name) : null;
  room.replaceChildren(
    h("p", { class: "asr-details" }, t("details", details)),
    ...hotwordReport(told.hotwords),
  );
  if (player) room.append(player, h("p", { class: "asr-details", hidden: true }, t("player_cannot")));
  if (!told.segments.length) {
    room.append(h("p", { class: "asr-details" }, t("no_words")));
    return;
  }
  const list = h("div", {
    class: "asr-lines",
    role: "region",
    tabindex: 0,
    "aria-label": t("transcript", { name }),
  });
  room.append(list);
  const lines = [];
  if (player) followPlayer(player, list, lines, told.segments);
  await fill(list, lines, told, player);
}

function makePlayer(media, name) {
  const player = h("audio", { controls: true, preload: "metadata", "aria-label": t("player", { name }) });
  player.addEventListener("error", () => {
    player.hidden = true;
    player.nextElementSibling.hidden = false;
    player.closest(".asr-card")?.classList.add("asr-mute");
  });
  player.src = new URL(media, document.baseURI);
  return player;
}

/** Puts the lines into the list, a group between two frames, and into `lines`. */
async function fill(list, lines, told, player) {
  const wordsOf = linesOfWords(told);
  for (let first = 0; first < told.segments.length && (first === 0 || list.isConnected); first += AT_ONCE) {
    const group = told.segments
      .slice(first, first + AT_ONCE)
      .map((segment, index) => line(segment, wordsOf[first + index], player));
    lines.push(...group);
    list.append(h("div", { class: "asr-group" }, ...group));
    await new Promise((resolve) => requestAnimationFrame(resolve));
  }
}

/** The words of each segment. */
function linesOfWords({ segments, words }) {
  let at = 0;
  return segments.map((segment) => {
    const first = at;
    while (at < words.length && words[at].start < segment.end - 1e-3) at++;
    return words.slice(first, at);
  });
}

function line(segment, words, player) {
  const text = h("span", { class: "asr-text" }, segment.text);
  const play = (seconds) => {
    player.currentTime = seconds;
    player.play().catch(() => undefined); // a browser may want to be asked by the player itself
  };
  const time = clock(segment.start, true);
  if (!player) return h("p", { class: "asr-line" }, h("span", { class: "asr-time" }, time), text);
  text.addEventListener("click", (event) => {
    if (String(getSelection()) === "") play(timeAt(event, segment, words));
  });
  const button = h("button", { type: "button", class: "asr-time", "aria-label": t("seek", { time }) }, time);
  button.addEventListener("click", () => play(segment.start));
  return h("p", { class: "asr-line" }, button, text);
}

/** The start of the word that was clicked; that of the line where the browser cannot tell which it was. */
function timeAt(event, segment, words) {
  const place =
    document.caretPositionFromPoint?.(event.clientX, event.clientY) ??
    document.caretRangeFromPoint?.(event.clientX, event.clientY);
  const offset = place?.offset ?? place?.startOffset;
  if (offset === undefined) return segment.start;
  let at = 0;
  for (const word of words) {
    at = segment.text.indexOf(word.text, at) + word.text.length;
    if (offset < at) return word.start;
  }
  return words.at(-1)?.start ?? segment.start;
}

function followPlayer(player, list, lines, segments) {
  let marked = null;
  player.addEventListener("timeupdate", () => {
    const line = lines[lastBefore(segments, player.currentTime + 0.05)] ?? null;
    if (line === marked) return;
    marked?.removeAttribute("aria-current");
    line?.setAttribute("aria-current", "true");
    if (line && !player.paused) {
      const [top, height] = [line.offsetTop - list.offsetTop, list.clientHeight];
      if (top < list.scrollTop || top + line.offsetHeight > list.scrollTop + height) list.scrollTop = top - height / 3;
    }
    marked = line;
  });
}

function lastBefore(segments, seconds) {
  let [low, high] = [0, segments.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (segments[middle].start <= seconds) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

function hotwordReport({ used, unusable }) {
  const parts = [];
  if (used.length) {
    const shown = used.slice(0, SHOWN_WORDS).join(t("list_separator"));
    const more = used.length > SHOWN_WORDS ? ` ${t("hotwords_more", { count: used.length - SHOWN_WORDS })}` : "";
    parts.push(h("p", { class: "asr-details" }, t("hotwords_used", { words: shown + more })));
  }
  if (unusable.length) {
    const rows = unusable
      .slice(0, SHOWN_WORDS)
      .map((word) => h("li", {}, h("strong", {}, word.text), ` – ${word.reason}`));
    if (unusable.length > SHOWN_WORDS) {
      rows.push(h("li", {}, t("hotwords_more", { count: unusable.length - SHOWN_WORDS })));
    }
    parts.push(
      h("div", { class: "asr-warning", role: "note" }, h("strong", {}, t("hotwords_unusable")), h("ul", {}, ...rows)),
    );
  }
  return parts;
}

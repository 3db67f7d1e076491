// <asr-job job= name= media= several>: a job from waiting to its text. <asr-results told=>: all that was sent in a tab.

import { ask, askJson, job as pathOf, pause, result, root } from "./api.js";
import { define, h } from "./dom.js";
import { problemBox } from "./problem.js";
import { clock, percent, span, t } from "./texts.js";
import { transcript } from "./transcript.js";

const FORMATS = { text: "TXT", srt: "SRT", vtt: "VTT", json: "JSON" };
const SUFFIX = { text: ".txt", srt: ".srt", vtt: ".vtt", json: ".json" };
const ENDED = ["done", "failed", "cancelled"];

/** How long until it is worth asking again: often at first, seldom when much is left. */
function rest(told, asked) {
  if (told.state === "queued") return Math.min(3000, 500 + 500 * (told.queue_position ?? 0));
  const left = told.progress.eta_seconds ?? 0;
  return Math.min(5000, Math.max(asked < 10 ? 400 : 1000, left * 20));
}

function stem(name) {
  return name.replace(/\.[^.]*$/, "") || name;
}

/** Follows a job until it has ended; `show` gets each answer, `lost` is told when the connection goes and comes. */
async function follow(id, signal, show, lost) {
  for (let asked = 0, failures = 0; !signal.aborted; asked++) {
    try {
      const told = await askJson(pathOf(id));
      if (signal.aborted) return;
      if (failures) lost(false);
      failures = 0;
      show(told);
      if (ENDED.includes(told.state)) return;
      await pause(rest(told, asked));
    } catch (problem) {
      // Too busy or away is no end: the job is safe on the other side.
      if (problem.status !== 0 && problem.status !== 429 && problem.status < 500) throw problem;
      failures++;
      lost(true);
      await pause(Math.min(10000, 500 * 2 ** failures));
    }
  }
}

class View {
  constructor(element, several) {
    this.element = element;
    this.id = element.getAttribute("job");
    this.name = element.getAttribute("name") ?? "";
    this.media = element.getAttribute("media") ?? "";
    this.several = several;
    this.abort = new AbortController();
    this.title = h("span", { class: "asr-name" });
    this.state = h("span", { class: "asr-state", role: "status" });
    this.bar = h("div", { class: "asr-bar-inner" });
    this.progress = h(
      "div",
      { class: "asr-bar", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 },
      this.bar,
    );
    this.figures = h("span", { class: "asr-figures" });
    this.cancel = h("button", { type: "button", class: "asr-button", onclick: () => this.stop() }, t("cancel"));
    this.work = h("div", { class: "asr-work" }, this.progress, h("div", { class: "asr-row" }, this.figures, this.cancel));
    this.lost = h("p", { class: "asr-lost", role: "status", hidden: true }, t("lost"));
    this.body = h("div", { class: "asr-body" });
    this.card = h(
      "article",
      { class: several ? "asr-card asr-several" : "asr-card" },
      h("header", { class: "asr-row" }, this.title, this.state),
      this.work,
      this.lost,
      this.body,
    );
    element.append(this.card);
    this.setName(this.name);
  }

  setName(name) {
    this.name = name;
    this.title.textContent = name;
    this.title.title = name;
    this.progress.setAttribute("aria-label", name);
  }

  async run() {
    const { signal } = this.abort;
    try {
      await follow(this.id, signal, (told) => this.show(told), (away) => (this.lost.hidden = !away));
    } catch (problem) {
      this.work.hidden = true;
      this.state.textContent = "";
      this.body.replaceChildren(problemBox(problem.code, problem.code === "job_not_found" ? "" : problem.message));
      this.tell("gone");
    }
  }

  show(told) {
    if (told.file.name !== this.name) this.setName(told.file.name);
    const { seconds_done: done, seconds_total: total, fraction, eta_seconds: left } = told.progress;
    const behind = told.queue_position ?? 0;
    this.card.dataset.state = told.state;
    const state =
      told.state === "queued" && behind ? t("job_queued_behind", { count: behind }) : t(`job_${told.state}`);
    if (this.state.textContent !== state) this.state.textContent = state;
    this.bar.style.width = `${(fraction ?? 0) * 100}%`;
    if (fraction === null) this.progress.removeAttribute("aria-valuenow");
    else this.progress.setAttribute("aria-valuenow", Math.floor(fraction * 100));
    const parts = [
      total
        ? t("progress", { percent: percent(fraction ?? 0), done: clock(done), total: clock(total) })
        : t("progress_unknown", { done: clock(done) }),
    ];
    if (left) parts.push(t("time_left", { time: span(left) }));
    this.figures.textContent = parts.join(" · ");
    if (!ENDED.includes(told.state)) return;
    this.work.hidden = true;
    if (told.state === "failed") this.body.replaceChildren(problemBox(told.error.code, told.error.message));
    if (told.state === "done") this.finish();
    this.tell(told.state);
  }

  tell(state) {
    this.element.dataset.state = state;
    this.element.dispatchEvent(new CustomEvent("asr-ended", { bubbles: true }));
  }

  finish() {
    const links = Object.entries(FORMATS).map(([format, label]) =>
      h(
        "a",
        {
          class: "asr-button",
          href: new URL(result(this.id, format), root),
          download: stem(this.name) + SUFFIX[format],
          "aria-label": t("download_one", { format: label, name: this.name }),
        },
        label,
      ),
    );
    const tools = h("div", { class: "asr-tools" }, h("span", { class: "asr-label" }, t("download")), ...links);
    if (navigator.clipboard) tools.append(this.copyButton());
    const room = h("div");
    this.body.replaceChildren(tools, room);
    if (!this.several) {
      transcript(room, this.id, this.name, this.media);
      return;
    }
    const toggle = h("button", { type: "button", class: "asr-button", "aria-expanded": "false" }, t("show_text"));
    toggle.addEventListener("click", () => {
      const open = toggle.getAttribute("aria-expanded") === "false";
      toggle.setAttribute("aria-expanded", String(open));
      toggle.textContent = t(open ? "hide_text" : "show_text");
      room.replaceChildren();
      if (open) transcript(room, this.id, this.name, "");
    });
    tools.append(toggle);
  }

  copyButton() {
    const button = h("button", { type: "button", class: "asr-button" }, t("copy"));
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(await (await ask(result(this.id, "text"))).text());
        button.textContent = t("copied");
      } catch (problem) {
        this.body.prepend(problemBox(problem.code ?? "other", problem.message));
      }
      setTimeout(() => (button.textContent = t("copy")), 2000);
    });
    return button;
  }

  async stop() {
    this.cancel.disabled = true;
    try {
      this.show(await askJson(`${pathOf(this.id)}/cancel`, "POST"));
    } catch (problem) {
      this.body.replaceChildren(problemBox(problem.code, problem.message));
    }
    this.cancel.disabled = false;
  }
}

define("asr-job", (element) => {
  const view = new View(element, element.hasAttribute("several"));
  view.run();
  return () => view.abort.abort();
});

/** What each tab shows is remembered until the browser's tab is closed. Returns what forgets it, if it is still that. */
function remember(kind, jobs) {
  const known = () => JSON.parse(sessionStorage.getItem("asr-jobs") ?? "{}");
  const keep = (now) => sessionStorage.setItem("asr-jobs", JSON.stringify({ ...known(), [kind]: now }));
  keep(jobs);
  return () => String(known()[kind]) === String(jobs) && keep([]);
}

// What was sent in one go, as JSON in `told`: {kind, sent: [{name, job, media} or {name, code, message}, ...]}.
define("asr-results", (element) => {
  const { kind, sent } = JSON.parse(element.getAttribute("told"));
  const accepted = sent.filter((one) => one.job);
  const parts = sent.map((one) =>
    one.job
      ? h("asr-job", { job: one.job, name: one.name, media: one.media, several: kind === "batch" })
      : problemBox(one.code, one.message, one.name),
  );
  if (kind === "batch" && accepted.length) element.append(summaryOf(element, parts));
  element.append(...parts);
  return accepted.length ? remember(kind, accepted.map((one) => one.job)) : null;
});

function summaryOf(element, parts) {
  const jobs = parts.filter((part) => part.localName === "asr-job");
  const refused = parts.length - jobs.length;
  const summary = h("span", { role: "status" });
  const zip = h("a", { class: "asr-button asr-strong", download: "transcripts.zip" }, t("download_all"));
  const tally = () => {
    const inState = (state) => jobs.filter((one) => one.dataset.state === state);
    const [done, failed] = [inState("done"), inState("failed").length + refused];
    const words = [t("batch_summary", { done: done.length, all: parts.length })];
    if (failed) words.push(t("batch_failed", { failed }));
    summary.textContent = words.join(" · ");
    const query = new URLSearchParams(done.map((one) => ["job", one.getAttribute("job")]));
    zip.href = new URL(`ui/results.zip?${query}`, root);
    zip.hidden = !done.length;
  };
  element.addEventListener("asr-ended", tally);
  tally();
  return h("div", { class: "asr-row asr-summary" }, summary, zip);
}

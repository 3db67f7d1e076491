// What the engine does and takes: <asr-header>, <asr-limits kind=> above each form, and the tab <asr-system>.

import { define, h } from "./dom.js";
import { listen } from "./engine.js";
import { bytes, clock, span, t } from "./texts.js";

const DEMO = "demo"; // the model that is shipped to show that everything works

define("asr-header", (element) => {
  const light = h("span", { class: "asr-light", "aria-hidden": "true" });
  const state = h("span");
  const words = h("p", { class: "asr-message", hidden: true });
  const leave = h(
    "form",
    { method: "post", action: "./session/end", hidden: document.documentElement.dataset.keys !== "1" },
    h("button", { type: "submit", class: "asr-button" }, t("leave")),
  );
  element.append(
    h(
      "header",
      { class: "asr-header" },
      h("div", {}, h("h1", {}, t("title")), h("p", {}, t("tagline"))),
      h("div", { class: "asr-engine", role: "status" }, light, state, leave),
    ),
    words,
  );
  document.title = t("title");
  return listen((engine) => {
    const name = engine.lost ? "lost" : engine.state ? `engine_${engine.state}` : "";
    light.dataset.state = engine.lost || !engine.state ? "lost" : engine.state;
    state.textContent = name ? t(name) : engine.problem.message;
    const told = wordsOf(engine);
    words.textContent = told;
    words.hidden = !told;
    words.dataset.state = engine.state ?? "";
  });
});

/** What is worth saying beside the state. */
function wordsOf({ state, message, model }) {
  if (["starting", "failed"].includes(state)) return message;
  return model === DEMO ? t("demo_model") : "";
}

define("asr-limits", (element) => {
  const kind = element.getAttribute("kind");
  const text = h("p", { class: "asr-hint" });
  const note = h("p", { class: "asr-warning", hidden: true }, t("hotwords_none"));
  element.append(text, note);
  if (kind === "microphone" && !window.isSecureContext) {
    element.append(h("p", { class: "asr-warning" }, t("microphone_insecure")));
  }
  return listen((engine) => {
    note.hidden = !(engine.state === "ready" && engine.hotwords === false);
    const { limits } = engine;
    if (!limits) return;
    text.textContent = t(`limits_${kind}`, {
      size: bytes(limits.max_upload_bytes),
      duration: span(limits.max_audio_seconds),
      files: limits.page_batch_files,
    });
  });
});

define("asr-system", (element) => listen((engine) => element.replaceChildren(...tables(engine))));

function tables(engine) {
  const known = engine.lost ? engine.last : engine;
  if (!known?.limits) return [h("p", { class: "asr-hint" }, t("system_unknown"))];
  const { limits } = known;
  const restarts = Object.entries(known.worker_restarts).map(([cause, count]) => `${cause}: ${count}`);
  const unknown = t("system_unknown");
  const rtf = known.rtf;
  return [
    table("system_engine", [
      ["system_state", known.message && known.state !== "ready" ? `${t(`engine_${known.state}`)} – ${known.message}` : t(`engine_${known.state}`)],
      ["system_model", known.model],
      ["system_variant", known.variant],
      ["system_device", known.device],
      ["system_precision", known.precision],
      ["system_why", known.reasons.length ? h("ul", {}, ...known.reasons.map((reason) => h("li", {}, reason))) : unknown],
      ["system_self_check", known.self_check || unknown],
      ["system_vram", memory(known)],
      ["system_hotwords", t(known.hotwords ? "system_yes" : "system_no")],
      ["system_version", known.version],
    ]),
    table("system_load", [
      ["system_queue", clock(known.waiting_seconds), t("system_room", { duration: span(limits.queue_seconds) })],
      [
        "system_rtf",
        rtf === null ? unknown : t("system_rtf_meaning", { rtf: rtf.toPrecision(2), time: span(rtf * 60) }),
      ],
      ["system_restarts", restarts.join(", ") || t("system_none")],
    ]),
    table("system_limits", [
      ["system_limit_size", bytes(limits.max_upload_bytes)],
      ["system_limit_duration", span(limits.max_audio_seconds)],
      ["system_limit_files", String(limits.page_batch_files)],
      ["system_limit_hotwords", bytes(limits.max_hotword_bytes)],
    ]),
  ];
}

function memory({ device, device_peak_bytes: peak }) {
  if (peak !== null && peak !== undefined) return bytes(peak);
  return device === "cpu" ? t("system_vram_none") : t("system_unknown");
}

function table(title, rows) {
  return h(
    "section",
    { class: "asr-card" },
    h("h2", {}, t(title)),
    h(
      "dl",
      {},
      ...rows.flatMap(([name, value, note]) => [
        h("dt", {}, t(name)),
        h("dd", {}, value, note ? h("small", {}, note) : null),
      ]),
    ),
  );
}

// What went wrong in the reader's language, then the API's own words.

import { h } from "./dom.js";
import { listen } from "./engine.js";
import { has, t } from "./texts.js";

export function problemBox(code, message, name = "") {
  const key = `error_${code}`;
  const box = h("div", { class: "asr-problem", role: "alert" });
  const title = has(key) ? t(key) : t("error_other");
  box.append(h("strong", {}, name ? `${title} – ${name}` : title));
  if (message) box.append(h("p", {}, message));
  if (has(`fix_${code}`)) {
    const fix = h("p");
    // The limits are known when the service has been asked.
    const end = listen((engine) => {
      fix.textContent = t(`fix_${code}`, { files: engine.limits?.page_batch_files ?? "" });
    });
    if (!fix.textContent) fix.textContent = t(`fix_${code}`);
    else end();
    box.append(fix);
  }
  return box;
}

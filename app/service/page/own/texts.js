// The words of the page in the browser's language, and numbers as people write them.

const all = await (await fetch(new URL("./texts.json", import.meta.url))).json();

export const language = (navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en";
document.documentElement.lang = language === "zh" ? "zh-CN" : "en";

/** A text by its name, its places filled with values; an unknown name is shown as it is. */
export function t(name, values = {}) {
  const text = all[language][name] ?? name;
  return text.replace(/\{(\w+)\}/g, (whole, key) => values[key] ?? whole);
}

export function has(name) {
  return name in all[language];
}

/** 0:07, 12:34 or 1:02:03; `precise` adds tenths, for times of words. */
export function clock(seconds, precise = false) {
  const tenths = Math.floor(Math.max(0, seconds) * 10 + 1e-6);
  const whole = Math.floor(tenths / 10);
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (number) => String(number).padStart(2, "0");
  return (h ? `${h}:${two(m)}` : `${m}`) + `:${two(s)}` + (precise ? `.${tenths % 10}` : "");
}

/** A length of time in words: 12 h, 5 min, 8 s. */
export function span(seconds) {
  const units = language === "zh" ? [" 小时", " 分钟", " 秒"] : [" h", " min", " s"];
  if (seconds >= 5400) return trim(seconds / 3600) + units[0];
  if (seconds >= 90) return Math.round(seconds / 60) + units[1];
  return (seconds >= 10 ? Math.round(seconds) : trim(seconds)) + units[2];
}

export function bytes(count) {
  let [value, unit] = [count, "B"];
  for (const larger of ["KiB", "MiB", "GiB", "TiB"]) {
    if (value < 1024) break;
    [value, unit] = [value / 1024, larger];
  }
  return `${trim(value)} ${unit}`;
}

export function percent(fraction) {
  return `${Math.floor(fraction * 100)} %`;
}

function trim(value) {
  return value.toFixed(1).replace(/\.0$/, "");
}

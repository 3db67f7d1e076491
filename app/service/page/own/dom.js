// Elements made of names, attributes and children. Text is always text here, never markup.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/**
 * Defines a custom element; `live(element)` fills it when it comes into the page, and may return what ends it.
 * It begins anew when its attribute `told` changes: Gradio keeps an element and changes only what differs.
 */
export function define(name, live) {
  customElements.define(
    name,
    class extends HTMLElement {
      static observedAttributes = ["told"];

      connectedCallback() {
        if (this.end === undefined) this.end = live(this) || null;
      }

      disconnectedCallback() {
        if (this.end) this.end();
        this.end = undefined;
        this.replaceChildren();
      }

      attributeChangedCallback() {
        if (this.end === undefined) return;
        this.disconnectedCallback();
        this.connectedCallback();
      }
    },
  );
}

// Drawing: elements, rows that keep the focus while their cells change, times, and the line of a load.

/** Makes an element: attributes, listeners (`onclick`), then children (texts or nodes; nothing for null). */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/**
 * The rows of a table, by key. A cell is made anew only when what it shows has changed, so that whoever is about to
 * press a button in it finds it where it was.
 */
export class Rows {
  #body;
  #columns;
  #rows = new Map();

  /** `columns` are `{ name, header?, number?, key(row), draw(row) }`: `key` is all that the cell depends on. */
  constructor(body, columns) {
    this.#body = body;
    this.#columns = columns;
  }

  show(rows, keyOf) {
    const wanted = new Set(rows.map(keyOf));
    for (const [key, row] of this.#rows) {
      if (!wanted.has(key)) {
        row.element.remove();
        this.#rows.delete(key);
      }
    }
    rows.forEach((row, at) => {
      const key = keyOf(row);
      let known = this.#rows.get(key);
      if (!known) {
        known = { element: h("div", { role: "row", "data-key": key }), cells: [] };
        this.#rows.set(key, known);
      }
      this.#fill(known, row);
      if (this.#body.children[at] !== known.element) this.#body.insertBefore(known.element, this.#body.children[at] ?? null);
    });
  }

  #fill(known, row) {
    this.#columns.forEach((column, at) => {
      const shown = JSON.stringify(column.key(row));
      const cell = known.cells[at];
      if (cell?.shown === shown) return;
      const element = h("span", { role: column.header ? "rowheader" : "cell", "data-cell": column.name, class: column.number ? "number" : null });
      element.append(...[column.draw(row)].flat().filter((child) => child !== null));
      if (!cell) known.element.append(element);
      else replaceKeepingFocus(cell.element, element);
      known.cells[at] = { element, shown };
    });
  }
}

/** Replaces `old`; a button that has the focus hands it to the one in its place. */
function replaceKeepingFocus(old, element) {
  const had = old.contains(document.activeElement);
  old.replaceWith(element);
  if (had) element.querySelector("button")?.focus();
}

/** `12:03:04` of a time in RFC 3339. */
export function clock(at) {
  return new Date(at).toLocaleTimeString([], { hour12: false });
}

export function time(at) {
  return h("time", { datetime: at, title: at }, clock(at));
}

/** `3 s`, `12 min`, `5 h` */
export function span(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 90) return `${seconds} s`;
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`;
  return seconds < 48 * 3600 ? `${Math.round(seconds / 3600)} h` : `${Math.round(seconds / 86400)} d`;
}

export function since(at) {
  return span(Date.now() - new Date(at).getTime());
}

export function percent(fraction) {
  return `${Math.round(fraction * 100)} %`;
}

export function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : word.endsWith("s") ? "es" : "s"}`;
}

const WIDTH = 100;
const HEIGHT = 24;
const SAMPLES = 60;

/** A load over the last five minutes; the present ends at the right. */
export function loadLine(history, now) {
  const values = [...(history?.predicted ?? []), now].slice(-SAMPLES);
  const x = (at) => WIDTH - ((values.length - 1 - at) * WIDTH) / (SAMPLES - 1);
  const y = (value) => HEIGHT - Math.min(1, Math.max(0, value)) * HEIGHT;
  const points = values.map((value, at) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `${percent(Math.min(...values))} to ${percent(Math.max(...values))}`);
  const shape = (tag, attributes) => {
    const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    svg.append(element);
  };
  shape("line", { class: "limit", x1: 0, x2: WIDTH, y1: HEIGHT - 0.5, y2: HEIGHT - 0.5 });
  shape("polygon", { class: "area", points: `${x(0).toFixed(1)},${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}` });
  shape("polyline", { class: "line", points: points.join(" ") });
  return svg;
}

// What all parts use: elements, numbers, the data of the page.

const read = (id) => JSON.parse(document.getElementById(id).textContent);
const payload = read("payload");
const runs = payload.runs;
const root = document.documentElement;

// An element; text is set as text, never as HTML.
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) node.setAttribute(name, value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

// Plotly reads tags and entities in every text: a name shall come out as it is.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const percent = (value) => (isNumber(value) ? (100 * value).toFixed(2) : "–");
const score = (value) => (isNumber(value) ? Number(value.toPrecision(4)).toString() : "–");
const seconds = (value) => (isNumber(value) ? `${value.toFixed(value < 10 ? 1 : 0)} s` : "–");

// A mark beside an AUROC that is worse than chance.
const chance = (name, value) => (name.endsWith("_auroc") && isNumber(value) && value < 0.5 ? make("small", { class: "chance" }, " below chance") : null);

const dataOf = (name) => payload.data.find((data) => data.name === name);
function shortLabel(run) {
  const data = dataOf(run.data);
  return data.short[data.variants.indexOf(run.variant)];
}
payload.groups.forEach((group) => group.runs.forEach((key) => { runs[key].key = key; runs[key].group = group; }));

// Calls a function once, when the element comes near the screen.
const waiting = new WeakMap();
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting || !waiting.has(entry.target)) continue;
    const work = waiting.get(entry.target);
    waiting.delete(entry.target);
    near.unobserve(entry.target);
    work();
  }
}, { rootMargin: "300px" });
function whenNear(node, work) {
  waiting.set(node, work);
  near.observe(node);
}

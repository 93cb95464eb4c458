// What all views use: the data, elements, numbers, theme, sortable tables, the metric, plots.

const readJson = (id) => JSON.parse(document.getElementById(id).textContent);
const payload = readJson("payload");
const runs = payload.runs;
const root = document.documentElement;
payload.groups.forEach((group) => group.runs.forEach((key) => { runs[key].group = group; }));

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

// Plotly interprets tags and entities in every text.
const plain = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const hundred = (value) => (isNumber(value) ? 100 * value : null);
const percent = (value) => (isNumber(value) ? (100 * value).toFixed(2) : "–");
const score = (value) => (isNumber(value) ? Number(value.toPrecision(4)).toString() : "–");
const belowChance = (metric, value) => (metric.endsWith("_auroc") && isNumber(value) && value < 0.5 ? make("small", { class: "chance" }, " below chance") : null);

const dataOf = (name) => payload.data.find((data) => data.name === name);
function shortLabel(run) {
  const data = dataOf(run.data);
  return data.short[data.variants.indexOf(run.variant)];
}

// Calls a function once, when the element comes near the screen.
const waiting = new WeakMap();
const observer = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting || !waiting.has(entry.target)) continue;
    const work = waiting.get(entry.target);
    waiting.delete(entry.target);
    observer.unobserve(entry.target);
    work();
  }
}, { rootMargin: "300px" });
function whenNear(node, work) {
  waiting.set(node, work);
  observer.observe(node);
}

// Theme: light, dark, or the system's.

const THEMES = ["auto", "light", "dark"];
const themeButton = document.getElementById("theme");

function setTheme(theme) {
  root.dataset.theme = THEMES.includes(theme) ? theme : "auto";
  themeButton.textContent = `Theme: ${root.dataset.theme}`;
  try { localStorage.setItem("anomalib-rd-theme", root.dataset.theme); } catch (_) { /* storage may be forbidden */ }
  redrawAll();
}

// Tables sorted by a click on a heading; rows of the foot stay.

const byText = new Intl.Collator(undefined, { numeric: true });

function makeSortable(table) {
  const width = table.tBodies[0]?.rows[0]?.cells.length ?? 0;
  const heads = [...table.tHead.rows].flatMap((row) => [...row.cells]).filter((cell) => cell.colSpan === 1);
  if (heads.length !== width) return;
  heads.forEach((head, column) => {
    head.setAttribute("aria-sort", "none");
    const button = make("button", { type: "button", onclick: () => sortTable(table, heads, column) });
    button.append(...head.childNodes);
    head.append(button);
  });
}

function sortTable(table, heads, column) {
  const direction = heads[column].getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  heads.forEach((head, index) => head.setAttribute("aria-sort", index === column ? direction : "none"));
  const sign = direction === "ascending" ? 1 : -1;
  const keyed = [...table.tBodies[0].rows].map((row) => [sortKey(row.cells[column]), row]);
  // Missing values stay last in both directions.
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" && typeof b === "number" ? a - b : byText.compare(a, b));
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}

function sortKey(cell) {
  const value = cell.dataset.value;
  if (value !== undefined) return value === "" ? null : Number(value);
  return cell.textContent.trim() || null;
}

// Plots: Plotly is run when the first one comes near the screen.

// Okabe and Ito: distinguishable by the colour-blind.
const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999"];
const colour = (index) => COLOURS[index % COLOURS.length];
const inkColour = () => getComputedStyle(document.body).color;
const drawn = new Map();

// figure() makes { data, layout } again for each theme and metric.
function plot(node, label, figure) {
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", label);
  whenNear(node, () => {
    if (!window.Plotly) document.head.append(make("script", {}, document.getElementById("plotly").textContent));
    drawn.set(node, figure);
    redraw(node);
  });
}

function redraw(node) {
  const { data, layout } = drawn.get(node)();
  const line = getComputedStyle(document.querySelector(".top")).borderBottomColor;
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  const font = { family: getComputedStyle(document.body).fontFamily, size: 12, color: inkColour() };
  const base = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", font, hoverlabel: { font: { family: font.family } },
    margin: { l: 48, r: 12, t: 12, b: 44 }, dragmode: false, legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
  };
  const axes = { xaxis: { ...axis, ...layout.xaxis }, yaxis: { ...axis, ...layout.yaxis } };
  Plotly.react(node, data, { ...base, ...layout, ...axes }, { displayModeBar: false, responsive: true });
}

function redrawAll() {
  for (const node of drawn.keys()) {
    if (node.offsetParent) redraw(node);
    else whenNear(node, () => redraw(node));
  }
}

// Before a view is filled again.
function removePlots(view) {
  for (const node of drawn.keys()) {
    if (!view.contains(node)) continue;
    Plotly.purge(node);
    drawn.delete(node);
  }
}

// The metric of tables and plots: one, or all.

let metric = null;
const metricBar = document.getElementById("metric-bar");

function setMetric(name) {
  metric = name;
  for (const cell of document.querySelectorAll(".by-metric [data-metric]")) cell.classList.toggle("on", name === "all" || cell.dataset.metric === name);
  redrawAll();
}

// Plots show one metric even where the tables show all.
const plottedMetric = () => (metric === "all" ? Object.keys(payload.metrics)[0] : metric);

document.querySelectorAll("table.sortable").forEach(makeSortable);
themeButton.addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length]));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawAll);
setTheme(root.dataset.theme);
metricBar.addEventListener("change", (event) => setMetric(event.target.value));
// All metrics of a single variant fit.
if (payload.data.every((data) => data.variants.length === 1)) metricBar.querySelector("[value=all]").checked = true;
setMetric(metricBar.querySelector(":checked").value);

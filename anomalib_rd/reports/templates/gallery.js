// Test images with anomaly map and ground truth: cards, the gallery, and one image large.

const loaded = new Map();

// The images of a group are parsed when the first is needed.
function imagesOf(group) {
  const index = payload.groups.indexOf(group);
  if (!loaded.has(index)) loaded.set(index, document.getElementById(`images-${index}`) ? readJson(`images-${index}`) : null);
  return loaded.get(index);
}

const hasImages = (group) => document.getElementById(`images-${payload.groups.indexOf(group)}`) !== null;

// run: whose anomaly map to overlay; null for the image alone. Filled when near the screen.
function makePicture(group, image, run) {
  const [path, defect] = group.images[image];
  const node = make("div", { class: "picture", style: "aspect-ratio: 1" });
  const add = (text, attributes) => node.append(make("img", { src: `data:image/jpeg;base64,${text}`, decoding: "async", ...attributes }));
  whenNear(node, () => {
    const all = imagesOf(group);
    node.style.aspectRatio = `${all.size[1]} / ${all.size[0]}`;
    add(all.photos[image], { alt: `${defect}: ${path}` });
    const map = run && all.maps[run.key]?.[image];
    if (map) add(map, { class: "map", alt: `anomaly map, ${run.variant}, seed ${run.seed}` });
    else if (run) node.append(make("span", { class: "none" }, "anomaly map not saved"));
    if (all.contours[image]) node.append(makeContour(all.contours[image]));
  });
  return node;
}

function makeContour(line) {
  const element = (tag, attributes, ...children) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };
  const paths = ["under", "over"].map((name) => element("path", { class: name, d: line }));
  return element("svg", { viewBox: "0 0 1000 1000", preserveAspectRatio: "none", "aria-hidden": "true" }, ...paths);
}

// The image's score against the run's threshold.
function verdict(run, image) {
  const value = run.scores[image];
  const isDefect = Boolean(run.group.images[image][2]);
  if (!isNumber(value) || !isNumber(run.threshold)) return { name: "–", wrong: false, kind: "" };
  const isAbove = value >= run.threshold;
  if (isAbove === isDefect) return { name: isDefect ? "detected" : "passed", wrong: false, kind: "right" };
  return isAbove ? { name: "false alarm", wrong: true, kind: "fp" } : { name: "missed", wrong: true, kind: "fn" };
}

function verdictText(run, image) {
  const { name, wrong } = verdict(run, image);
  return make("span", {}, make("span", { class: wrong ? "verdict wrong" : "verdict" }, name), " score ", make("span", { class: "score" }, score(run.scores[image])));
}

// Share of the images of the other class that rank on the wrong side: comparable between runs.
const misranked = (run, image) => (isNumber(run.misranked[image]) ? run.misranked[image] : -1);

// Cards: an item is { group, image, runs }; the maps of its runs are side by side.

const itemsOf = (group, own) => (hasImages(group) ? Object.keys(imagesOf(group).photos).map((image) => ({ group, image: Number(image), runs: own })) : []);

function fillCards(list, items) {
  list.classList.toggle("pairs", items.some((item) => item.runs.length > 1));
  list.replaceChildren(...items.map((item, index) => make("li", {}, makeCard(item, items, index))));
}

function makeCard({ group, image, runs: own }, items, index) {
  const [path, defect] = group.images[image];
  return make("button", { type: "button", class: "card", onclick: (event) => openLightbox(items, index, event.currentTarget) },
    make("span", { class: "panels" }, own.map((run) => makePicture(group, image, run))),
    make("span", { class: "text" },
      make("span", {}, `${group.category} · ${defect}`),
      own.map((run) => make("span", { title: run.variant }, verdictText(run, image), own.length > 1 ? ` · ${shortLabel(run)}` : "")),
      make("span", { class: "soft" }, path.split("/").pop())));
}

function sortItems(items, order) {
  const value = ({ image, runs: [run] }) => run.scores[image] ?? -Infinity;
  const share = ({ image, runs: [run] }) => misranked(run, image);
  const change = ({ image, runs: [run, other] }) => (other ? Math.abs(misranked(run, image) - misranked(other, image)) || 0 : 0);
  const orders = {
    worst: (a, b) => share(b) - share(a),
    high: (a, b) => value(b) - value(a),
    low: (a, b) => value(a) - value(b),
    change: (a, b) => change(b) - change(a),
    name: () => 0,
  };
  return items.sort(orders[order]);
}

// The gallery: images of a variant, or of two side by side, filtered and sorted.

const RESULTS = [["", "all"], ["wrong", "wrong"], ["fp", "false alarms"], ["fn", "missed defects"]];
const ORDERS = [["worst", "worst ranked first"], ["high", "highest score first"], ["low", "lowest score first"], ["change", "largest change first"], ["name", "by name"]];
const galleryCards = document.getElementById("gallery-cards");
const galleryControls = document.getElementById("gallery-controls");
let choice = {};

// Of repeated runs the last one is used, as in the tables.
const findRun = (group, variant, seed) => group.runs.map((key) => runs[key]).findLast((run) => run.variant === variant && String(run.seed) === seed);

function matches(item) {
  if (choice.defect && item.group.images[item.image][1] !== choice.defect) return false;
  const isResult = ({ wrong, kind }) => (choice.result === "wrong" ? wrong : kind === choice.result);
  return !choice.result || item.runs.some((run) => isResult(verdict(run, item.image)));
}

function showGallery() {
  const groups = payload.groups.filter((group) => group.data === choice.data && (!choice.category || group.category === choice.category));
  const items = sortItems(groups.flatMap((group) => {
    const own = [choice.variant, choice.compare].filter(Boolean).map((variant) => findRun(group, variant, choice.seed)).filter(Boolean);
    return own.length ? itemsOf(group, own).filter(matches) : [];
  }), choice.order);
  fillCards(galleryCards, items);
  const wrong = items.filter(({ image, runs: [run] }) => verdict(run, image).wrong).length;
  const empty = payload.groups.some(hasImages) ? "No image matches." : "These runs saved no images (gallery.zip).";
  document.getElementById("gallery-about").textContent = items.length ? `${items.length} ${items.length === 1 ? "image" : "images"}, ${wrong} wrong at the threshold of the best F1.` : empty;
}

// options: pairs of value and text.
function makeSelect(name, label, options) {
  const onchange = (event) => { choice = { ...choice, [name]: event.target.value }; changeGallery(name); };
  return make("label", {}, label, make("select", { name, onchange }, options.map(([value, text]) =>
    make("option", { value, selected: value === String(choice[name]) }, text))));
}

function fillControls() {
  const data = dataOf(choice.data);
  const groups = payload.groups.filter((group) => group.data === data.name);
  const shown = groups.filter((group) => !choice.category || group.category === choice.category);
  const defects = [...new Set(shown.flatMap((group) => group.images.map((image) => image[1])))].sort();
  const seeds = [...new Set(groups.flatMap((group) => group.runs.map((key) => runs[key].seed)))].sort((a, b) => a - b);
  const same = (names) => names.map((name) => [String(name), String(name)]);
  const variants = data.variants.map((name, index) => [name, data.short[index]]);
  galleryControls.replaceChildren(...[
    payload.data.length > 1 ? makeSelect("data", "data", same(payload.data.map((one) => one.name))) : null,
    makeSelect("category", "category", [["", "all"], ...same(data.categories)]),
    makeSelect("variant", "variant", variants),
    data.variants.length > 1 ? makeSelect("compare", "compare with", [["", "none"], ...variants.filter(([name]) => name !== choice.variant)]) : null,
    seeds.length > 1 ? makeSelect("seed", "seed", same(seeds)) : null,
    makeSelect("defect", "defect type", [["", "all"], ...same(defects)]),
    makeSelect("result", "result", RESULTS),
    makeSelect("order", "order", ORDERS.filter(([name]) => name !== "change" || choice.compare)),
    makeOpacityControl(), makeContourControl(),
  ].filter(Boolean));
}

function changeGallery(name) {
  if (name === "data") choice = { data: choice.data };
  if (name === "category") choice.defect = "";
  openGallery(choice);
  const query = new URLSearchParams(Object.entries(choice).filter(([, value]) => value !== "" && value !== undefined));
  history.replaceState(null, "", `#/gallery?${query}`);
  galleryControls.querySelector(`[name="${name}"]`)?.focus();
}

// Values that are missing in a link, or unknown on this page, get defaults.
function openGallery(wanted) {
  const data = dataOf(wanted.data) ?? payload.data[0];
  const seeds = Object.values(runs).filter((run) => run.data === data.name).map((run) => run.seed);
  const known = (value, values, otherwise) => (values.includes(value) ? value : otherwise);
  const values = (pairs) => pairs.map(([value]) => value);
  choice = {
    data: data.name,
    category: known(wanted.category, data.categories, ""),
    variant: known(wanted.variant, data.variants, data.variants[0]),
    compare: known(wanted.compare, data.variants, ""),
    seed: known(String(wanted.seed), seeds.map(String), String(Math.min(...seeds))),
    defect: wanted.defect ?? "",
    result: known(wanted.result, values(RESULTS), ""),
    order: known(wanted.order, values(ORDERS), "worst"),
  };
  if (choice.compare === choice.variant) choice.compare = "";
  if (choice.order === "change" && !choice.compare) choice.order = "worst";
  fillControls();
  showGallery();
}

// The lightbox: arrow keys, buttons and swipes step, Escape closes.

const lightbox = document.getElementById("lightbox");
const box = { items: [], index: 0, opener: null };

// opener: the element that gets the focus back.
function openLightbox(items, index, opener) {
  Object.assign(box, { items, index, opener });
  lightbox.showModal();
  fillLightbox();
}

function step(by) {
  box.index = (box.index + by + box.items.length) % box.items.length;
  fillLightbox();
}

function fillLightbox() {
  const { group, image, runs: own } = box.items[box.index];
  const [path, defect] = group.images[image];
  const focused = document.activeElement?.dataset.step;
  const panel = (caption, run) => make("figure", {}, makePicture(group, image, run), make("figcaption", {}, caption));
  const caption = (run) => {
    const share = isNumber(run.misranked[image]) ? `, misranked against ${Math.abs(100 * run.misranked[image]).toFixed(0)} % of the ${group.images[image][2] ? "normal" : "defect"} images` : "";
    return make("span", {}, make("span", { title: run.variant }, `${shortLabel(run)}, seed ${run.seed}: `), verdictText(run, image),
      ` (threshold ${score(run.threshold)}${share}) `, make("a", { href: `#/run/${run.key}`, onclick: () => lightbox.close() }, "run"));
  };
  const button = (text, label, by) => make("button", { type: "button", class: "quiet", "data-step": by, "aria-label": label, onclick: () => step(by) }, text);
  lightbox.replaceChildren(
    make("div", { class: "head" },
      make("p", {}, make("strong", {}, `${group.category} · ${defect}`), ` ${path} `,
        make("span", { class: "count" }, `${box.index + 1} / ${box.items.length}`)),
      button("←", "Previous image", -1), button("→", "Next image", 1),
      make("button", { type: "button", class: "quiet close", onclick: () => lightbox.close() }, "Close")),
    make("div", { class: "panels" }, panel("image and ground truth", null), own.map((run) => panel(caption(run), run))),
    makeOpacityControl(), makeContourControl(),
  );
  // Keys go to the focused element, which must be inside.
  lightbox.querySelector(focused ? `[data-step="${focused}"]` : ".close").focus();
}

lightbox.addEventListener("keydown", (event) => {
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by || event.target.type === "range") return;
  step(by);
  event.preventDefault();
});
lightbox.addEventListener("click", (event) => { if (event.target === lightbox) lightbox.close(); });
lightbox.addEventListener("close", () => box.opener?.isConnected && box.opener.focus());

let touch = null;
lightbox.addEventListener("touchstart", (event) => {
  touch = event.touches.length === 1 && event.target.closest(".panels") ? event.touches[0] : null;
}, { passive: true });
lightbox.addEventListener("touchend", (event) => {
  if (!touch) return;
  const [right, down] = [event.changedTouches[0].clientX - touch.clientX, event.changedTouches[0].clientY - touch.clientY];
  touch = null;
  if (Math.abs(right) > 40 && Math.abs(right) > 2 * Math.abs(down)) step(right < 0 ? 1 : -1);
}, { passive: true });

// All sliders and boxes of the page have the same value.
function makeOpacityControl() {
  const oninput = (event) => {
    root.style.setProperty("--overlay", event.target.value / 100);
    document.querySelectorAll("input.overlay").forEach((other) => { other.value = event.target.value; });
  };
  const value = Math.round(100 * Number(getComputedStyle(root).getPropertyValue("--overlay")));
  return make("label", {}, "anomaly map opacity", make("input", { type: "range", class: "overlay", min: 0, max: 100, value, oninput }));
}

function makeContourControl() {
  const onchange = (event) => {
    root.classList.toggle("no-contours", !event.target.checked);
    document.querySelectorAll("input.contours").forEach((other) => { other.checked = event.target.checked; });
  };
  return make("label", { class: "check" }, make("input", { type: "checkbox", class: "contours", checked: !root.classList.contains("no-contours"), onchange }), "ground truth");
}

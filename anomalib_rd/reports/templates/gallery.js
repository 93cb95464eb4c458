// Test images of one variant, or of two side by side, filtered and sorted.

const KINDS = [["", "all"], ["wrong", "misjudged"], ["fp", "false alarms"], ["fn", "missed"]];
const SORTS = [["worst", "most wrongly ordered pairs first"], ["high", "highest score first"], ["low", "lowest score first"], ["change", "largest change first"], ["name", "by name"]];
const galleryCards = document.getElementById("gallery-cards");
let choice = {};

// A card for each item; runs beyond the first are laid beside it.
function fillCards(list, items) {
  list.classList.toggle("pairs", items.some((item) => item.runs.length > 1));
  list.replaceChildren(...items.map((item, index) => make("li", {}, card(item, () => items, index))));
}

function card(item, items, index) {
  const { group, image, runs: judged } = item;
  const [path, defect] = group.images[image];
  return make("button", { type: "button", class: "card", onclick: (event) => openLightbox(items(), index, event.currentTarget) },
    make("span", { class: "panels" }, judged.map((run) => picture(group, image, run))),
    make("span", { class: "text" },
      make("span", {}, `${group.category} · ${defect}`),
      judged.map((run) => make("span", { title: run.variant }, verdictText(run, image), judged.length > 1 ? ` · ${shortLabel(run)}` : "")),
      make("span", { class: "soft" }, path.split("/").pop())));
}

// The shown images of a group as items, in the group's order.
function itemsOf(group, judged) {
  if (!hasPictures(group)) return [];
  return Object.keys(picturesOf(group).photos).map((image) => ({ group, image: Number(image), runs: judged }));
}

function sorted(items, how) {
  const value = ({ image, runs: [run] }) => run.scores[image] ?? -Infinity;
  const change = ({ image, runs: [run, other] }) => (other ? Math.abs(badness(run, image) - badness(other, image)) || 0 : 0);
  const orders = {
    worst: (a, b) => badness(b.runs[0], b.image) - badness(a.runs[0], a.image),
    high: (a, b) => value(b) - value(a),
    low: (a, b) => value(a) - value(b),
    // Of the share of wrongly ordered pairs, between the two laid side by side.
    change: (a, b) => change(b) - change(a),
    name: () => 0,
  };
  return items.sort(orders[how]);
}

function runOf(group, variant, seed) {
  const own = group.runs.map((key) => runs[key]).filter((run) => run.variant === variant);
  // Of a run done twice the last counts, as in the tables.
  return own.findLast((run) => String(run.seed) === seed);
}

// An item counts as misjudged if any of the shown variants misjudges it.
function chosenItems() {
  const wanted = payload.groups.filter((group) => group.data === choice.data && (!choice.category || group.category === choice.category));
  const items = wanted.flatMap((group) => {
    const judged = [choice.variant, choice.beside].filter(Boolean).map((variant) => runOf(group, variant, choice.seed)).filter(Boolean);
    return judged.length ? itemsOf(group, judged) : [];
  });
  const fits = ({ group, image, runs: judged }) =>
    (!choice.defect || group.images[image][1] === choice.defect) &&
    (!choice.kind || judged.some((run) => { const found = verdict(run, image); return choice.kind === "wrong" ? found.wrong : found.kind === choice.kind; }));
  return sorted(items.filter(fits), choice.sort);
}

function showGallery() {
  const items = chosenItems();
  fillCards(galleryCards, items);
  const wrong = items.filter(({ image, runs: [run] }) => verdict(run, image).wrong).length;
  const nothing = payload.groups.some(hasPictures) ? "No image fits." : "These runs kept no pictures (gallery.zip).";
  document.getElementById("gallery-about").textContent =
    items.length ? `${items.length} ${items.length === 1 ? "image" : "images"}, ${wrong} misjudged at the threshold of the best F1.` : nothing;
}

// options: pairs of value and text.
function select(name, label, options) {
  const set = (event) => { choice = { ...choice, [name]: event.target.value }; galleryChanged(name); };
  const node = make("select", { name, onchange: set }, options.map(([value, text]) =>
    make("option", { value, selected: value === String(choice[name]) }, text)));
  return make("label", {}, label, node);
}

function galleryControls() {
  const data = dataOf(choice.data);
  const groups = payload.groups.filter((group) => group.data === data.name);
  const inCategory = groups.filter((group) => !choice.category || group.category === choice.category);
  const defects = [...new Set(inCategory.flatMap((group) => group.images.map((image) => image[1])))].sort();
  const seeds = [...new Set(groups.flatMap((group) => group.runs.map((key) => runs[key].seed)))].sort((a, b) => a - b);
  const same = (names) => names.map((name) => [String(name), String(name)]);
  const variants = data.variants.map((name, index) => [name, data.short[index]]);
  const others = variants.filter(([name]) => name !== choice.variant);
  document.getElementById("gallery-controls").replaceChildren(...[
    payload.data.length > 1 ? select("data", "data", same(payload.data.map((one) => one.name))) : null,
    select("category", "category", [["", "all"], ...same(data.categories)]),
    select("variant", "variant", variants),
    data.variants.length > 1 ? select("beside", "beside it", [["", "none"], ...others]) : null,
    seeds.length > 1 ? select("seed", "seed", same(seeds)) : null,
    select("defect", "defect type", [["", "all"], ...same(defects)]),
    select("kind", "judged", KINDS), select("sort", "order", SORTS.filter(([name]) => name !== "change" || choice.beside)),
    opacityControl(), contourControl(),
  ].filter(Boolean));
}

function galleryChanged(name) {
  if (name === "data") choice = { data: choice.data };
  if (name === "category") choice.defect = "";
  completeChoice();
  const words = new URLSearchParams(Object.entries(choice).filter(([, value]) => value !== "" && value !== undefined));
  history.replaceState(null, "", `#/gallery?${words}`);
  galleryControls();
  showGallery();
  document.querySelector(`#gallery-controls [name="${name}"]`)?.focus();
}

// What the link does not say, or says of runs that are not there, is filled in.
function completeChoice() {
  const data = dataOf(choice.data) ?? payload.data[0];
  const seeds = Object.values(runs).filter((run) => run.data === data.name).map((run) => run.seed);
  const firsts = (pairs) => pairs.map(([value]) => value);
  const known = (value, values, otherwise) => (values.includes(value) ? value : otherwise);
  choice = {
    data: data.name,
    category: known(choice.category, data.categories, ""),
    variant: known(choice.variant, data.variants, data.variants[0]),
    beside: known(choice.beside, data.variants, ""),
    seed: known(String(choice.seed), seeds.map(String), String(Math.min(...seeds))),
    defect: choice.defect ?? "",
    kind: known(choice.kind, firsts(KINDS), ""),
    sort: known(choice.sort, firsts(SORTS), "worst"),
  };
  if (choice.beside === choice.variant) choice.beside = "";
  if (choice.sort === "change" && !choice.beside) choice.sort = "worst";
}

function openGallery(words) {
  choice = Object.fromEntries(words);
  completeChoice();
  galleryControls();
  showGallery();
}

// The overview's plots, the page of a run, and the views by the address after "#".

const PATTERNS = ["", "/", ".", "x", "-"];
const WIDEST_BAR = 60; // pixels
const abbreviate = (text) => (text.length > 16 ? text.slice(0, 15) + "…" : text);

// A series for each variant; of a single variant, one for each headline metric if all are shown.
function categoryBars(data) {
  const together = metric === "all" && data.variants.length === 1 && payload.headline.length > 0;
  const names = together ? payload.headline : [plottedMetric()];
  const labels = data.categories.map(plain);
  const lowest = [];
  const series = names.flatMap((name, first) => data.variants.map((variant, second) => {
    const cells = data.categories.map((category) => data.means[name]?.[variant]?.[category] ?? [null, null]);
    cells.forEach(([mean, std]) => isNumber(mean) && lowest.push(100 * (mean - (std || 0))));
    const index = first + second;
    return {
      type: "bar", name: together ? payload.metrics[name] : plain(data.short[second]),
      x: labels, y: cells.map(([mean]) => hundred(mean)),
      error_y: { visible: cells.some(([, std]) => isNumber(std)), type: "data", array: cells.map(([, std]) => hundred(std)), thickness: 1.2, width: 2 },
      marker: { color: colour(index), pattern: { shape: PATTERNS[Math.floor(index / COLOURS.length) % PATTERNS.length] } },
      hovertemplate: "%{x}<br>%{y:.2f} %<extra>%{fullData.name}</extra>",
    };
  }));
  const slot = (Math.min(root.clientWidth, 1360) - 100) / data.categories.length;
  const least = Math.min(...lowest, 100);
  const floor = least > 50 ? Math.max(0, Math.floor((least - 3) / 5) * 5) : 0;
  return {
    data: series,
    layout: {
      barmode: "group", bargap: Math.max(0.2, 1 - (series.length * WIDEST_BAR) / slot), height: 340, showlegend: series.length > 1,
      yaxis: { range: [floor, 100.5], title: { text: (together ? "%" : `${payload.metrics[names[0]]}, %`) + (floor ? ` (axis starts at ${floor})` : "") } },
      xaxis: { type: "category", tickvals: labels, ticktext: data.categories.map((name) => plain(abbreviate(name))), showgrid: false },
    },
  };
}

function differencePlot(data) {
  const name = plottedMetric();
  const table = data.differences[name] || {};
  const compared = data.variants.filter((variant) => table[variant]);
  const rows = compared.map((variant) => table[variant][name].map(hundred));
  const arm = (end) => rows.map((row) => (row[end] === null ? 0 : Math.abs(row[end] - row[0])));
  return {
    data: [{
      type: "scatter", mode: "markers", orientation: "h",
      x: rows.map((row) => row[0]), y: compared.map((variant) => plain(data.short[data.variants.indexOf(variant)])),
      error_x: { type: "data", symmetric: false, array: arm(2), arrayminus: arm(1), thickness: 1.6, width: 5, color: inkColour() },
      marker: { size: 9, color: compared.map((variant) => colour(data.variants.indexOf(variant))) },
      hovertemplate: "%{y}<br>%{x:+.2f} points<extra></extra>",
    }],
    layout: {
      height: 110 + 34 * rows.length, showlegend: false,
      xaxis: { rangemode: "tozero", zeroline: true, zerolinewidth: 2, zerolinecolor: inkColour(), title: { text: `difference in ${payload.metrics[name]}, points` } },
      yaxis: { autorange: "reversed", type: "category" },
    },
  };
}

document.querySelectorAll(".plot[data-plot]").forEach((node) => {
  const data = payload.data[node.dataset.index];
  if (node.dataset.plot === "differences") plot(node, "Differences to the baseline with 95 % intervals, as in the table", () => differencePlot(data));
  else if (data.categories.length * data.variants.length < 2) node.remove();
  else plot(node, "Mean of each category and variant, as in the table", () => categoryBars(data));
});

// Plots of a run.

const FRACTION = { range: [-0.01, 1.02] };
const verticalLine = (x, reference = "y") => ({ type: "line", x0: x, x1: x, y0: 0, y1: 1, yref: reference, line: { color: inkColour(), width: 1.2, dash: "dot" } });

function rateCurves(run, names, x, y, more = {}) {
  const lines = names.filter(([name]) => run.curves[name]).map(([name, label], index) => ({
    type: "scatter", mode: "lines", name: label, x: run.curves[name][0], y: run.curves[name][1],
    line: { color: colour(index), width: 2, dash: index ? "dash" : "solid" },
    hovertemplate: `${x} %{x:.3f}<br>${y} %{y:.3f}<extra>%{fullData.name}</extra>`,
  }));
  return { data: lines, layout: { showlegend: lines.length > 1, xaxis: { ...FRACTION, title: { text: x } }, yaxis: { ...FRACTION, title: { text: y } }, ...more } };
}

const rocCurves = (run) => rateCurves(run, [["image_roc", "image"], ["pixel_roc", "pixel"]], "false positive rate", "true positive rate");
const precisionRecall = (run) => rateCurves(run, [["image_pr", "image"], ["pixel_pr", "pixel"]], "recall", "precision");
const proCurve = (run) => rateCurves(run, [["pro", "PRO"]], "false positive rate", "per-region overlap", {
  shapes: [verticalLine(0.3)],
  annotations: [{ x: 0.3, y: 0.06, text: "limit 0.3", showarrow: false, xanchor: "left", xshift: 4, font: { size: 11 } }],
});

function scoreHistogram(run) {
  const values = run.scores.filter(isNumber);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const size = (high - low || 1) / 30;
  const data = [["normal", 0, colour(0), ""], ["defect", 1, colour(5), "/"]].map(([name, label, fill, shape]) => ({
    type: "histogram", name, x: run.scores.filter((value, image) => isNumber(value) && run.group.images[image][2] === label),
    xbins: { start: low, end: high + size, size }, autobinx: false, opacity: 0.7, marker: { color: fill, pattern: { shape } },
    hovertemplate: "%{y} images<extra>%{fullData.name}</extra>",
  }));
  const shapes = isNumber(run.threshold) ? [verticalLine(run.threshold, "paper")] : [];
  return { data, layout: { barmode: "overlay", shapes, xaxis: { title: { text: "image score" } }, yaxis: { title: { text: "images" } } } };
}

const lossCurve = (run) => ({
  data: [{ type: "scatter", mode: run.loss.length > 40 ? "lines" : "lines+markers", x: run.loss.map((_, epoch) => epoch + 1), y: run.loss, line: { color: colour(0) }, hovertemplate: "epoch %{x}<br>%{y:.4g}<extra></extra>" }],
  layout: { xaxis: { title: { text: "epoch" }, rangemode: "tozero" }, yaxis: { title: { text: "training loss" }, rangemode: "tozero" } },
});

// The last epoch is the result; the best one is an oracle, chosen on the test set.
function testCurve(run) {
  const names = payload.headline.filter((name) => run.test_curve.some((point) => isNumber(point[name])));
  const data = names.map((name, index) => ({
    type: "scatter", mode: "lines+markers", name: payload.metrics[name] ?? name, marker: { size: 4 },
    x: run.test_curve.map((point) => point.epoch), y: run.test_curve.map((point) => hundred(point[name])),
    line: { color: colour(index) }, hovertemplate: "epoch %{x}<br>%{y:.2f} %<extra>%{fullData.name}</extra>",
  }));
  const mark = (label, symbol, epoch, values) => ({
    type: "scatter", mode: "markers", name: label, x: names.map(() => epoch), y: names.map((name) => hundred(values[name])),
    marker: { symbol, size: 11, color: names.map((_, index) => colour(index)), line: { width: 1.5, color: inkColour() } },
    hovertemplate: `${label}, epoch %{x}<br>%{y:.2f} %<extra></extra>`,
  });
  data.push(mark("last epoch (the result)", "circle", run.epochs, run.metrics));
  if (run.oracle) data.push(mark("oracle (best on the test set)", "star-open", run.oracle.epoch, run.oracle));
  return { data, layout: { height: 320, xaxis: { title: { text: "epoch" } }, yaxis: { title: { text: "test metrics, %" } } } };
}

function runPlots(run) {
  const hasCurve = (...names) => names.some((name) => run.curves[name]);
  const plots = [
    ["ROC", "", rocCurves, hasCurve("image_roc", "pixel_roc")],
    ["Precision and recall", "", precisionRecall, hasCurve("image_pr", "pixel_pr")],
    ["Per-region overlap (PRO)", "AUPRO is the area up to the limit", proCurve, hasCurve("pro")],
    ["Image scores", "dotted: threshold of the best F1 on the test set", scoreHistogram, run.scores.some(isNumber)],
    ["Training loss", "mean of each epoch", lossCurve, run.loss.length > 0],
    ["Test metrics by epoch", "the result is the last epoch", testCurve, run.test_curve.length > 0],
  ].filter(([, , , exists]) => exists);
  if (!plots.length) return make("p", { class: "about" }, "This run saved no curves.");
  return make("div", { class: "plots" }, plots.map(([name, note, draw]) => {
    const node = make("div", { class: "plot" });
    plot(node, `${name} of ${run.category}`, () => { const { data, layout } = draw(run); return { data, layout: { height: 280, ...layout } }; });
    return make("figure", {}, make("figcaption", {}, name, note ? make("small", {}, ` ${note}`) : null), node);
  }));
}

// The page of a run.

const runView = document.getElementById("view-run");
const about = (...children) => make("p", { class: "about" }, ...children);

function showRun(key) {
  const run = runs[key];
  removePlots(runView);
  if (!run) {
    runView.replaceChildren(make("h1", { tabindex: -1 }, "No such run"), make("p", {}, "This page does not contain the run of this link. ", make("a", { href: "#/runs" }, "All runs")));
    return "No such run";
  }
  const title = `${run.category} · ${shortLabel(run)} · seed ${run.seed}`;
  const validation = Object.entries(run.validation).filter(([, value]) => isNumber(value));
  runView.replaceChildren(...[
    make("h1", { tabindex: -1 }, title),
    about(`${run.data}, ${run.variant}. Protocol: ${run.headline}, ${run.epochs} ${run.epochs === 1 ? "epoch" : "epochs"}${run.size ? `, ${run.size} pixels` : ""}. `, make("span", { class: "path" }, run.folder)),
    siblings(run, "variant", (other) => other.seed === run.seed, shortLabel),
    siblings(run, "seed", (other) => other.variant === run.variant, (other) => other.seed),
    runFacts(run),
    run.chosen_on_test ? make("p", { class: "banner" }, "A search chose the config of this run by a metric of the test set: its numbers are no fair estimate.") : null,
    undefinedMetrics(run),
    about(`Threshold of predict: ${run.predict_threshold}.`),
    validation.length ? about("Held-out validation images, %: ", validation.map(([name, value]) => `${payload.names[name] ?? name} ${percent(value)}`).join(", ")) : null,
    make("h2", {}, "Curves"), runPlots(run),
    make("h2", {}, "Defect types"), ...defectTable(run),
    make("h2", {}, "Images"), ...runImages(run),
    make("h2", {}, "Config and provenance"), foldedJson("Config", run.config), foldedJson("Provenance", run.provenance),
  ].filter(Boolean));
  return title;
}

// Links to runs on the same images that differ in one respect.
function siblings(run, what, isAlike, name) {
  const others = run.group.runs.map((key) => runs[key]).filter(isAlike);
  if (others.length < 2) return null;
  return make("p", { class: "siblings" }, make("span", {}, what), others.map((other) =>
    other === run ? make("strong", { "aria-current": "page" }, String(name(other))) : make("a", { href: `#/run/${other.key}` }, String(name(other)))));
}

function runFacts(run) {
  const metrics = Object.entries(run.metrics).filter(([, value]) => isNumber(value)).map(([name, value]) => [`${payload.metrics[name]}, %`, [percent(value), belowChance(name, value)]]);
  return make("dl", { class: "facts" }, [...metrics, ...Object.entries(run.timing)].map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function undefinedMetrics(run) {
  const byReason = new Map();
  for (const [name, reason] of Object.entries(run.undefined)) byReason.set(reason, [...(byReason.get(reason) ?? []), payload.names[name] ?? name]);
  return byReason.size ? make("ul", { class: "about" }, [...byReason].map(([reason, names]) => make("li", {}, `Undefined: ${names.join(", ")}. ${reason}.`))) : null;
}

function defectTable(run) {
  if (!run.defects.length) return [about("No defect images.")];
  const good = run.group.images.map((image, index) => [image, index]).filter(([image]) => image[2] === 0);
  const alarms = good.filter(([, index]) => verdict(run, index).wrong).length;
  const number = (value, text) => make("td", { "data-value": value ?? "" }, text ?? String(value));
  const table = make("table", { class: "sortable" },
    make("thead", {}, make("tr", {}, ["defect type", "images", "image AUROC, %", "missed images"].map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, run.defects.map((row) => make("tr", {},
      make("th", { scope: "row" }, make("a", { href: galleryLink(run, row.name) }, row.name)), number(row.images),
      make("td", { "data-value": row.auroc ?? "" }, percent(row.auroc), belowChance("image_auroc", row.auroc)), number(row.missed)))));
  makeSortable(table);
  return [
    about(`Each defect type against the ${good.length} good images. Missed images score below ${score(run.threshold)}, the threshold of the best F1 on the test set, where ${alarms} good images are false alarms.`),
    make("div", { class: "box narrow", tabindex: 0, role: "region", "aria-label": "Defect types" }, table),
  ];
}

function galleryLink(run, defect) {
  const { data, category, variant, seed } = run;
  return `#/gallery?${new URLSearchParams({ data, category, variant, seed, ...(defect ? { defect } : {}) })}`;
}

function runImages(run) {
  if (!hasImages(run.group)) return [about("This run saved no images (gallery.zip).")];
  const list = make("ul", { class: "cards" });
  fillCards(list, sortItems(itemsOf(run.group, [run]), "worst"));
  return [about("Worst ranked first. ", make("a", { class: "to-gallery", href: galleryLink(run) }, "Filter, or compare variants")), list];
}

const foldedJson = (name, value) => make("details", { class: name.toLowerCase() }, make("summary", {}, name), make("pre", { tabindex: 0 }, JSON.stringify(value, null, 2)));

// Views by the address after "#", so that links and Back work.

const views = Object.fromEntries(["overview", "runs", "gallery", "run"].map((name) => [name, document.getElementById(`view-${name}`)]));
const pageTitle = document.title;
const scrolled = {};
let shown = null;

function route() {
  const hash = location.hash;
  // Such as the link to the content: an anchor in the current view.
  if (shown && hash && !hash.startsWith("#/")) return;
  if (shown) scrolled[shown] = scrollY;
  if (lightbox.open) lightbox.close();
  const [path, query = ""] = hash.slice(2).split("?");
  const [name, key = ""] = path.split("/");
  const view = name in views ? name : "overview";
  for (const [other, node] of Object.entries(views)) node.hidden = other !== view;
  document.querySelectorAll("nav [data-view]").forEach((link) => {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  let title = { runs: "Runs", gallery: "Gallery" }[view];
  if (view === "run") title = showRun(decodeURIComponent(key));
  if (view === "gallery") openGallery(Object.fromEntries(new URLSearchParams(query)));
  document.title = title ? `${title} · ${pageTitle}` : pageTitle;
  const isFirst = shown === null;
  shown = view + (view === "run" ? key : "");
  if (name === "status") {
    document.getElementById("status").scrollIntoView();
    document.querySelector("#status h2").focus({ preventScroll: true });
  } else if (!isFirst) {
    views[view].querySelector("h1").focus({ preventScroll: true });
    scrollTo(0, scrolled[shown] ?? 0);
  }
}

history.scrollRestoration = "manual";
addEventListener("hashchange", route);
route();

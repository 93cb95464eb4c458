// The page of one run.

const runView = document.getElementById("view-run");

function showRun(key) {
  const run = runs[key];
  forgetPlots(runView);
  if (!run) {
    runView.replaceChildren(make("h1", { tabindex: -1 }, "No such run"), make("p", {}, "The link is to a run that this page does not hold. ", make("a", { href: "#/runs" }, "All runs")));
    return "No such run";
  }
  const title = `${run.category} · ${shortLabel(run)} · seed ${run.seed}`;
  const parts = [
    make("h1", { tabindex: -1 }, title),
    make("p", { class: "about" }, `${run.data}, ${run.variant}. ${run.headline}, ${run.epochs} ${run.epochs === 1 ? "epoch" : "epochs"}${run.size ? `, ${run.size} pixels` : ""}. `, make("span", { class: "path" }, run.folder)),
    siblings(run, "variant", (other) => other.seed === run.seed, shortLabel),
    siblings(run, "seed", (other) => other.variant === run.variant, (other) => other.seed),
    facts(run),
    run.chosen_on_test ? make("p", { class: "banner" }, "A search that was given a metric of the test set chose this run's config: its numbers are no fair estimate.") : null,
    undefinedMetrics(run),
    make("p", { class: "about" }, `Threshold for the verdicts of predict: ${run.verdicts}.`),
    validation(run),
    make("h2", {}, "Curves"), plots(run),
    make("h2", {}, "Defect types"), ...defectTable(run),
    make("h2", {}, "Images"), ...runImages(run),
    make("h2", {}, "Config and provenance"),
    folded("Config", run.config), folded("Provenance", { ...run.provenance, checkpoint: run.checkpoint, duration_s: run.duration, images_per_s: run.speed }),
  ];
  runView.replaceChildren(...parts.filter(Boolean));
  return title;
}

// Links to the runs of the same images that differ in one thing.
function siblings(run, what, alike, name) {
  const others = run.group.runs.map((key) => runs[key]).filter(alike);
  if (others.length < 2) return null;
  return make("p", { class: "siblings" }, make("span", {}, what), others.map((other) =>
    other === run ? make("strong", { "aria-current": "page" }, String(name(other))) : make("a", { href: `#/run/${other.key}` }, String(name(other)))));
}

function facts(run) {
  const pairs = Object.entries(run.metrics).filter(([, value]) => isNumber(value)).map(([name, value]) => [`${payload.metrics[name]} %`, [percent(value), chance(name, value)]]);
  pairs.push(["train", seconds(run.duration.train)], ["test", seconds(run.duration.test)]);
  for (const [name, value] of Object.entries(run.speed)) if (isNumber(value)) pairs.push([`${name} images/s`, value.toFixed(1)]);
  return make("dl", { class: "facts" }, pairs.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function validation(run) {
  const known = Object.entries(run.validation).filter(([, value]) => isNumber(value));
  if (!known.length) return null;
  return make("p", { class: "about" }, "On the images held out for validation, %: ", known.map(([name, value]) => `${payload.names[name] ?? name} ${percent(value)}`).join(", "));
}

function undefinedMetrics(run) {
  const reasons = Object.entries(run.undefined);
  if (!reasons.length) return null;
  const byReason = new Map();
  for (const [name, reason] of reasons) byReason.set(reason, [...(byReason.get(reason) ?? []), payload.names[name] ?? name]);
  return make("ul", { class: "about" }, [...byReason].map(([reason, names]) => make("li", {}, `Undefined: ${names.join(", ")}. ${reason}.`)));
}

function plots(run) {
  const kept = (...names) => names.some((name) => run.curves[name]);
  const wanted = [
    ["ROC", "", roc, kept("image_roc", "pixel_roc")],
    ["Precision and recall", "", precisionRecall, kept("image_pr", "pixel_pr")],
    ["Per-region overlap", "AUPRO is the area up to the limit", pro, kept("pro")],
    ["Scores", "dotted: threshold of the best image F1 on the test set, for looking only", histogram, run.scores.some(isNumber)],
    ["Training loss", "mean of each epoch", lossCurve, run.loss.length > 0],
    ["Test curve", "the result is the last epoch; the oracle chose on the test set", testCurve, run.test_curve.length > 0],
  ].filter(([, , , there]) => there);
  if (!wanted.length) return make("p", { class: "about" }, "The run kept no curves.");
  return make("div", { class: "plots" }, wanted.map(([name, note, draw]) => {
    const node = make("div", { class: "plot" });
    plot(node, `${name} of ${run.category}`, () => draw(run));
    return make("figure", {}, make("figcaption", {}, name, note ? make("small", {}, ` ${note}`) : null), node);
  }));
}

function defectTable(run) {
  if (!run.defects.length) return [make("p", { class: "about" }, "No defect images.")];
  const good = run.group.images.filter((image) => image[2] === 0).length;
  const head = ["defect type", "images", "image AUROC %", "missed"];
  const table = make("table", { class: "sortable" },
    make("thead", {}, make("tr", {}, head.map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, run.defects.map((row) => make("tr", {},
      make("th", { scope: "row" }, make("a", { href: galleryLink(run, row.name) }, row.name)), make("td", { "data-value": row.images }, String(row.images)),
      make("td", { "data-value": row.auroc ?? "" }, percent(row.auroc), chance("_auroc", row.auroc)), make("td", { "data-value": row.missed }, String(row.missed))))));
  sortable(table);
  const alarms = run.group.images.filter((image, index) => image[2] === 0 && verdict(run, index).wrong).length;
  return [
    make("p", { class: "about" }, `Each defect type against the ${good} good images. Missed: below the threshold ${score(run.threshold)} of the best image F1 on the test set, at which ${alarms} of the good images are false alarms.`),
    make("div", { class: "box narrow", tabindex: 0, role: "region", "aria-label": "Defect types" }, table),
  ];
}

function galleryLink(run, defect) {
  const words = { data: run.data, category: run.category, variant: run.variant, seed: run.seed, ...(defect ? { defect } : {}) };
  return `#/gallery?${new URLSearchParams(words)}`;
}

function runImages(run) {
  if (!hasPictures(run.group)) return [make("p", { class: "about" }, "The run kept no pictures (gallery.zip).")];
  const list = make("ul", { class: "cards" });
  fillCards(list, sorted(itemsOf(run.group, [run]), "worst"));
  return [make("p", { class: "about" }, "Those with the most wrongly ordered pairs of a normal and a defect image come first. ", make("a", { href: galleryLink(run) }, "Filter, or lay another variant beside")), list];
}

function folded(name, value) {
  return make("details", {}, make("summary", {}, name), make("pre", { tabindex: 0 }, JSON.stringify(value, null, 2)));
}

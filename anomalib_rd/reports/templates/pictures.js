// A test image with its anomaly map and ground truth, laid over each other.

const loaded = new Map();

// The pictures of a group are parsed when the first is wanted.
function picturesOf(group) {
  const index = payload.groups.indexOf(group);
  if (!loaded.has(index)) {
    const source = document.getElementById(`pictures-${index}`);
    loaded.set(index, source ? JSON.parse(source.textContent) : null);
  }
  return loaded.get(index);
}

const hasPictures = (group) => document.getElementById(`pictures-${payload.groups.indexOf(group)}`) !== null;
const jpeg = (text) => `data:image/jpeg;base64,${text}`;

// run: whose map is laid over; null for the image alone. Filled in when near the screen.
function picture(group, image, run) {
  const [path, defect] = group.images[image];
  const node = make("div", { class: "picture", style: "aspect-ratio: 1" });
  whenNear(node, () => {
    const all = picturesOf(group);
    const [height, width] = all.size;
    node.style.aspectRatio = `${width} / ${height}`;
    node.append(make("img", { src: jpeg(all.photos[image]), alt: `${defect}: ${path}`, decoding: "async" }));
    const map = run && all.maps[run.key]?.[image];
    if (map) node.append(make("img", { class: "map", src: jpeg(map), alt: `anomaly map, ${run.variant}, seed ${run.seed}`, decoding: "async" }));
    else if (run) node.append(make("span", { class: "none" }, "no anomaly map kept"));
    if (all.contours[image]) node.append(contour(all.contours[image]));
  });
  return node;
}

function contour(line) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  svg.setAttribute("viewBox", "0 0 1000 1000");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const name of ["under", "over"]) {
    const path = document.createElementNS(space, "path");
    path.setAttribute("class", name);
    path.setAttribute("d", line);
    svg.append(path);
  }
  return svg;
}

// How a score stands to the threshold of its run.
function verdict(run, image) {
  const value = run.scores[image];
  const label = run.group.images[image][2];
  if (!isNumber(value) || !isNumber(run.threshold)) return { name: "–", wrong: false, kind: "" };
  const alarm = value >= run.threshold;
  if (alarm === Boolean(label)) return { name: label ? "found" : "passed", wrong: false, kind: "right" };
  return alarm ? { name: "false alarm", wrong: true, kind: "fp" } : { name: "missed", wrong: true, kind: "fn" };
}

// Share of the images of the other class that it is wrongly ordered with: comparable between runs.
function badness(run, image) {
  const value = run.badness[image];
  return isNumber(value) ? value : -1;
}

function verdictText(run, image) {
  const found = verdict(run, image);
  return make("span", {}, make("span", { class: found.wrong ? "verdict wrong" : "verdict" }, found.name), ` ${score(run.scores[image])}`);
}

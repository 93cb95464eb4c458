// One image large, stepped through by arrow keys, buttons and swipes; Escape closes.

const lightbox = document.getElementById("lightbox");
const box = { items: [], at: 0, opener: null };

// items: [{ group, image, runs }]; opener: the element that gets the focus back.
function openLightbox(items, at, opener) {
  Object.assign(box, { items, at, opener });
  lightbox.showModal();
  fillLightbox();
}

function step(by) {
  box.at = (box.at + by + box.items.length) % box.items.length;
  fillLightbox();
}

function fillLightbox() {
  const { group, image, runs: judged } = box.items[box.at];
  const [path, defect] = group.images[image];
  const focused = document.activeElement?.dataset.step;
  const panel = (title, run) => make("figure", {}, picture(group, image, run), make("figcaption", {}, title));
  const judgement = (run) => [
    make("span", { title: run.variant }, `${shortLabel(run)}, seed ${run.seed}: `), verdictText(run, image),
    ` (threshold ${score(run.threshold)}${isNumber(run.badness[image]) ? `, ${Math.abs(100 * run.badness[image]).toFixed(0)} % of its pairs wrongly ordered` : ""}) `, make("a", { href: `#/run/${run.key}`, onclick: () => lightbox.close() }, "run"),
  ];
  lightbox.replaceChildren(
    make("div", { class: "head" },
      make("p", {}, make("strong", {}, `${group.category} · ${defect}`), ` ${path} `,
        make("span", { class: "count" }, `${box.at + 1} / ${box.items.length}`)),
      make("button", { type: "button", class: "quiet", "data-step": "-1", "aria-label": "Previous image", onclick: () => step(-1) }, "←"),
      make("button", { type: "button", class: "quiet", "data-step": "1", "aria-label": "Next image", onclick: () => step(1) }, "→"),
      make("button", { type: "button", class: "quiet close", onclick: () => lightbox.close() }, "Close")),
    make("div", { class: "panels" }, panel("image and ground truth", null), judged.map((run) => panel(make("span", {}, ...judgement(run)), run))),
    opacityControl(), contourControl(),
  );
  // The keys go to what has the focus: it shall be inside.
  lightbox.querySelector(focused ? `[data-step="${focused}"]` : ".close").focus();
}

lightbox.addEventListener("keydown", (event) => {
  if (event.target.type === "range") return;
  if (event.key === "ArrowRight") step(1);
  else if (event.key === "ArrowLeft") step(-1);
  else return;
  event.preventDefault();
});
lightbox.addEventListener("click", (event) => { if (event.target === lightbox) lightbox.close(); });
lightbox.addEventListener("close", () => box.opener?.isConnected && box.opener.focus());

let touch = null;
lightbox.addEventListener("touchstart", (event) => {
  const inside = event.touches.length === 1 && event.target.closest(".panels");
  touch = inside ? { x: event.touches[0].clientX, y: event.touches[0].clientY } : null;
}, { passive: true });
lightbox.addEventListener("touchend", (event) => {
  if (!touch) return;
  const { clientX, clientY } = event.changedTouches[0];
  const [right, down] = [clientX - touch.x, clientY - touch.y];
  touch = null;
  if (Math.abs(right) > 40 && Math.abs(right) > 2 * Math.abs(down)) step(right < 0 ? 1 : -1);
}, { passive: true });

// Every slider and box of the page says the same.
function opacityControl() {
  const set = (event) => {
    root.style.setProperty("--overlay", event.target.value / 100);
    document.querySelectorAll("input.overlay").forEach((other) => { other.value = event.target.value; });
  };
  const now = Math.round(100 * Number(getComputedStyle(root).getPropertyValue("--overlay")));
  return make("label", {}, "anomaly map", make("input", { type: "range", class: "overlay", min: 0, max: 100, value: now, oninput: set }));
}

function contourControl() {
  const set = (event) => {
    root.classList.toggle("no-contours", !event.target.checked);
    document.querySelectorAll("input.contours").forEach((other) => { other.checked = event.target.checked; });
  };
  return make("label", { class: "check" }, make("input", { type: "checkbox", class: "contours", checked: !root.classList.contains("no-contours"), onchange: set }), "ground truth");
}

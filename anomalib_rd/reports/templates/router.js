// Views by the part of the address after "#", so that links and Back work.

const views = Object.fromEntries(["overview", "runs", "gallery", "run"].map((name) => [name, document.getElementById(`view-${name}`)]));
const pageTitle = document.title;
const scrolled = {};
let shown = null;

function route() {
  const hash = location.hash;
  // Such as the link to the content: a place in the view that is shown.
  if (shown && hash && !hash.startsWith("#/")) return;
  if (shown) scrolled[shown] = scrollY;
  if (lightbox.open) lightbox.close();
  const [path, query = ""] = hash.slice(2).split("?");
  const [name, key = ""] = path.split("/");
  const view = name === "run" ? "run" : name in views ? name : "overview";
  for (const [other, node] of Object.entries(views)) node.hidden = other !== view;
  document.querySelectorAll("nav [data-view]").forEach((link) => {
    if (link.dataset.view === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  });
  let title = { runs: "Runs", gallery: "Gallery" }[view];
  if (view === "run") title = showRun(decodeURIComponent(key));
  if (view === "gallery") openGallery(new URLSearchParams(query));
  document.title = title ? `${title} · ${pageTitle}` : pageTitle;
  const first = shown === null;
  shown = view + (view === "run" ? key : "");
  if (name === "unfinished") {
    document.getElementById("unfinished").scrollIntoView();
    document.querySelector("#unfinished h2").focus({ preventScroll: true });
  } else if (!first) {
    views[view].querySelector("h1").focus({ preventScroll: true });
    scrollTo(0, scrolled[shown] ?? 0);
  }
}

history.scrollRestoration = "manual";
addEventListener("hashchange", route);
route();

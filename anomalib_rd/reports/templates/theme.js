// Light, dark, or as the system says.

const THEMES = { auto: "Theme: auto", light: "Theme: light", dark: "Theme: dark" };
const systemDark = matchMedia("(prefers-color-scheme: dark)");
const themeListeners = [];

function isDark() {
  const theme = root.dataset.theme;
  return theme === "dark" || (theme !== "light" && systemDark.matches);
}

function setTheme(theme) {
  root.dataset.theme = theme in THEMES ? theme : "auto";
  document.getElementById("theme").textContent = THEMES[root.dataset.theme];
  document.getElementById("theme").setAttribute("aria-label", THEMES[root.dataset.theme] + ", change");
  try { localStorage.setItem("anomalib-rd-theme", root.dataset.theme); } catch (_) { /* not remembered */ }
  themeListeners.forEach((listener) => listener());
}

document.getElementById("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  setTheme(names[(names.indexOf(root.dataset.theme) + 1) % names.length]);
});
systemDark.addEventListener("change", () => themeListeners.forEach((listener) => listener()));
setTheme(root.dataset.theme);

// Plotly, run when the first plot comes near the screen, and drawn in the page's colours.

// Okabe and Ito: told apart by the colour-blind.
const COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999"];
const colour = (index) => COLOURS[index % COLOURS.length];
const drawn = new Map();

function loadPlotly() {
  if (window.Plotly) return;
  const script = document.createElement("script");
  script.textContent = document.getElementById("plotly").textContent;
  document.head.append(script);
}

// figure() gives { data, layout } anew, for each theme and metric.
function plot(node, label, figure) {
  node.setAttribute("role", "img");
  node.setAttribute("aria-label", label);
  whenNear(node, () => {
    loadPlotly();
    drawn.set(node, figure);
    redraw(node);
  });
}

function redraw(node) {
  const { data, layout } = drawn.get(node)();
  Plotly.react(node, data, { ...look(layout), ...layout }, { displayModeBar: false, responsive: true });
}

function redrawAll() {
  for (const node of drawn.keys()) {
    if (node.offsetParent) redraw(node);
    else whenNear(node, () => redraw(node));
  }
}

// Before a view is filled anew.
function forgetPlots(view) {
  for (const node of drawn.keys()) {
    if (!view.contains(node)) continue;
    Plotly.purge(node);
    drawn.delete(node);
  }
}

function look(layout) {
  const style = getComputedStyle(document.body);
  const ink = style.color;
  const line = getComputedStyle(root).getPropertyValue("--line").trim();
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
  layout.xaxis = { ...axis, ...layout.xaxis };
  layout.yaxis = { ...axis, ...layout.yaxis };
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: style.fontFamily, size: 12, color: ink },
    margin: { l: 48, r: 12, t: 12, b: 44 },
    legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    hoverlabel: { font: { family: style.fontFamily } },
    dragmode: false,
  };
}

themeListeners.push(redrawAll);

// One metric at a time in the tables and plots of the overview, or all.

const metricListeners = [];
let metric = null;
const metricColumns = [...document.querySelectorAll(".by-metric [data-metric]")];

function setMetric(name) {
  metric = name;
  for (const cell of metricColumns) cell.classList.toggle("on", name === "all" || cell.dataset.metric === name);
  metricListeners.forEach((listener) => listener());
}

// Plots show one metric, even where the tables show all.
const drawnMetric = () => (metric === "all" ? Object.keys(payload.metrics)[0] : metric);

const metricBar = document.getElementById("metric-bar");
metricBar.addEventListener("change", (event) => setMetric(event.target.value));
// With a single variant all metrics have room.
if (payload.data.every((data) => data.variants.length === 1)) {
  metricBar.querySelector("[value=all]").checked = true;
}
setMetric(metricBar.querySelector(":checked").value);

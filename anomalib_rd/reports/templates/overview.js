// The overview's plots: means of each category, differences to the baseline.

const HEADLINE = ["image_auroc", "pixel_auroc", "aupro"].filter((name) => name in payload.metrics);
const SHAPES = ["", "/", ".", "x", "-"];
const brief = (text) => (text.length > 16 ? text.slice(0, 15) + "…" : text);

const WIDEST_BAR = 44; // pixels
// A few bars need not be as wide as the page.
const barsWidth = (data) => Math.max(480, 140 + 40 * data.categories.length * (data.variants.length + 0.5));

// A series for each variant; of a single variant one for each headline metric if all are asked for.
function bars(data) {
  const together = metric === "all" && data.variants.length === 1 && HEADLINE.length > 0;
  const names = together ? HEADLINE : [drawnMetric()];
  const ends = [];
  const shownNames = data.categories.map(plain);
  const series = names.flatMap((name) => data.variants.map((variant, index) => {
    const cells = data.categories.map((category) => data.means[name]?.[variant]?.[category] ?? [null, null, 0]);
    cells.forEach(([mean, std]) => isNumber(mean) && ends.push(100 * (mean - (std || 0))));
    const place = together ? names.indexOf(name) : index;
    return {
      type: "bar",
      name: together ? payload.metrics[name] : plain(data.short[index]),
      x: shownNames,
      y: cells.map(([mean]) => (isNumber(mean) ? 100 * mean : null)),
      error_y: { visible: cells.some(([, std]) => isNumber(std)), type: "data", array: cells.map(([, std]) => (isNumber(std) ? 100 * std : null)), thickness: 1.2, width: 2 },
      marker: { color: colour(place), pattern: { shape: SHAPES[Math.floor(place / COLOURS.length) % SHAPES.length] } },
      hovertemplate: "%{x}<br>%{y:.2f} %<extra>%{fullData.name}</extra>",
    };
  }));
  const slot = (Math.min(barsWidth(data), innerWidth) - 60) / data.categories.length;
  const least = ends.length ? Math.min(...ends) : 0;
  const floor = least > 50 ? Math.max(0, Math.floor((least - 3) / 5) * 5) : 0;
  const title = (together ? "" : `${payload.metrics[names[0]]} `) + "%" + (floor ? `, axis from ${floor}` : "");
  return {
    data: series,
    layout: {
      barmode: "group", bargap: Math.max(0.25, 1 - series.length * WIDEST_BAR / slot), height: 340, showlegend: series.length > 1,
      yaxis: { range: [floor, 100.5], title: { text: title } },
      xaxis: { type: "category", tickvals: shownNames, ticktext: data.categories.map((name) => plain(brief(name))) },
    },
  };
}

function forest(data) {
  const name = drawnMetric();
  const table = data.differences[name] || {};
  const compared = data.variants.filter((variant) => table[variant]);
  const rows = compared.map((variant) => table[variant][name].map((value) => (isNumber(value) ? 100 * value : null)));
  const labels = compared.map((variant) => plain(data.short[data.variants.indexOf(variant)]));
  const ink = getComputedStyle(document.body).color;
  const arm = (end) => rows.map((row) => (row[end] === null ? 0 : Math.abs(row[end] - row[0])));
  return {
    data: [{
      type: "scatter", mode: "markers", orientation: "h",
      x: rows.map((row) => row[0]), y: labels,
      error_x: { type: "data", symmetric: false, array: arm(2), arrayminus: arm(1), thickness: 1.6, width: 5, color: ink },
      marker: { size: 9, color: compared.map((variant) => colour(data.variants.indexOf(variant))) },
      hovertemplate: "%{y}<br>%{x:+.2f} points<extra></extra>",
    }],
    layout: {
      height: 110 + 34 * rows.length, showlegend: false,
      xaxis: { rangemode: "tozero", zeroline: true, zerolinewidth: 2, zerolinecolor: ink, title: { text: `${payload.metrics[name]}, points` } },
      yaxis: { autorange: "reversed", type: "category" },
    },
  };
}

const OVERVIEW = {
  bars: [bars, "Means of each category and variant, with standard deviations over seeds"],
  forest: [forest, "Differences to the baseline with 95 % intervals"],
};
document.querySelectorAll(".plot[data-plot]").forEach((node) => {
  const [draw, label] = OVERVIEW[node.dataset.plot];
  const data = payload.data[node.dataset.index];
  if (node.dataset.plot === "bars" && data.categories.length * data.variants.length < 2) return node.remove();
  if (node.dataset.plot === "forest") node.style.minHeight = "0";
  else node.style.maxWidth = `${barsWidth(data)}px`;
  return plot(node, `${label}; the numbers are in the table`, () => draw(data));
});
metricListeners.push(redrawAll);

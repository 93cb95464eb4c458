// The plots of a run's page.

const FRACTION = { range: [-0.01, 1.02] };

function rateCurves(run, names, x, y, note) {
  const lines = names.filter(([name]) => run.curves[name]).map(([name, label], index) => ({
    type: "scatter", mode: "lines", name: label, x: run.curves[name][0], y: run.curves[name][1],
    line: { color: colour(index), width: 2, dash: index ? "dash" : "solid" },
    hovertemplate: `${x} %{x:.3f}<br>${y} %{y:.3f}<extra>%{fullData.name}</extra>`,
  }));
  const layout = { height: 280, showlegend: lines.length > 1, xaxis: { ...FRACTION, title: { text: x } }, yaxis: { ...FRACTION, title: { text: y } } };
  return { data: lines, layout: { ...layout, ...note } };
}

const roc = (run) => rateCurves(run, [["image_roc", "image"], ["pixel_roc", "pixel"]], "false positive rate", "true positive rate");
const precisionRecall = (run) => rateCurves(run, [["image_pr", "image"], ["pixel_pr", "pixel"]], "recall", "precision");

function pro(run) {
  const ink = getComputedStyle(document.body).color;
  return rateCurves(run, [["pro", "PRO"]], "false positive rate", "per-region overlap", {
    shapes: [{ type: "line", x0: 0.3, x1: 0.3, y0: 0, y1: 1, line: { color: ink, width: 1.2, dash: "dot" } }],
    annotations: [{ x: 0.3, y: 0.06, text: "limit 0.3", showarrow: false, xanchor: "left", xshift: 4, font: { size: 11 } }],
  });
}

function histogram(run) {
  const values = run.scores.filter(isNumber);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const size = (high - low || 1) / 30;
  const series = [["normal", 0, colour(0), ""], ["defect", 1, colour(5), "/"]].map(([name, label, fill, shape]) => ({
    type: "histogram", name, x: run.scores.filter((value, image) => isNumber(value) && run.group.images[image][2] === label),
    xbins: { start: low, end: high + size, size }, autobinx: false, opacity: 0.7, marker: { color: fill, pattern: { shape } },
    hovertemplate: "%{y} images<extra>%{fullData.name}</extra>",
  }));
  const ink = getComputedStyle(document.body).color;
  const line = isNumber(run.threshold) ? [{ type: "line", x0: run.threshold, x1: run.threshold, yref: "paper", y0: 0, y1: 1, line: { color: ink, width: 1.2, dash: "dot" } }] : [];
  return { data: series, layout: { height: 280, barmode: "overlay", shapes: line, xaxis: { title: { text: "image score" } }, yaxis: { title: { text: "images" } } } };
}

function lossCurve(run) {
  return {
    data: [{ type: "scatter", mode: run.loss.length > 40 ? "lines" : "lines+markers", x: run.loss.map((_, epoch) => epoch + 1), y: run.loss, line: { color: colour(0) }, hovertemplate: "epoch %{x}<br>%{y:.4g}<extra></extra>" }],
    layout: { height: 280, xaxis: { title: { text: "epoch" }, rangemode: "tozero" }, yaxis: { title: { text: "training loss" }, rangemode: "tozero" } },
  };
}

// The last epoch is the result; the best one is an oracle that looked at the test set.
function testCurve(run) {
  const shown = ["image_auroc", "pixel_auroc", "aupro"].filter((name) => run.test_curve.some((point) => isNumber(point[name])));
  const series = shown.map((name, index) => ({
    type: "scatter", mode: "lines+markers", name: payload.metrics[name] ?? name, marker: { size: 4 },
    x: run.test_curve.map((point) => point.epoch), y: run.test_curve.map((point) => (isNumber(point[name]) ? 100 * point[name] : null)),
    line: { color: colour(index) }, hovertemplate: "epoch %{x}<br>%{y:.2f} %<extra>%{fullData.name}</extra>",
  }));
  const mark = (label, symbol, epoch, values) => ({
    type: "scatter", mode: "markers", name: label, x: shown.map(() => epoch), y: shown.map((name) => (isNumber(values[name]) ? 100 * values[name] : null)),
    marker: { symbol, size: 11, color: shown.map((_, index) => colour(index)), line: { width: 1.5, color: getComputedStyle(document.body).color } },
    hovertemplate: `${label}, epoch %{x}<br>%{y:.2f} %<extra></extra>`,
  });
  series.push(mark("last epoch (the result)", "circle", run.epochs, run.metrics));
  if (run.oracle) series.push(mark("oracle (best on the test set)", "star-open", run.oracle.epoch, run.oracle));
  return { data: series, layout: { height: 320, xaxis: { title: { text: "epoch" } }, yaxis: { title: { text: "% of the test set" } } } };
}

// Tables sorted by a click on a heading; the rows of the foot stay.

const byText = new Intl.Collator(undefined, { numeric: true });

function sortable(table) {
  const width = table.tBodies[0]?.rows[0]?.cells.length ?? 0;
  const heads = [...table.tHead.rows].flatMap((row) => [...row.cells]).filter((cell) => cell.colSpan === 1);
  // The corner comes first whatever row it stands in: then the heads are the columns.
  if (heads.length !== width) return;
  heads.forEach((head, column) => {
    head.setAttribute("aria-sort", "none");
    const button = make("button", { type: "button", onclick: () => sortBy(table, heads, column) });
    button.append(...head.childNodes);
    head.append(button);
  });
}

function sortBy(table, heads, column) {
  const now = heads[column].getAttribute("aria-sort");
  const direction = now === "ascending" ? "descending" : "ascending";
  heads.forEach((head, index) => head.setAttribute("aria-sort", index === column ? direction : "none"));
  const sign = direction === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => [sortKey(row.cells[column]), row]);
  // What is missing stays last in both directions.
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return sign * (typeof a === "number" && typeof b === "number" ? a - b : byText.compare(a, b));
  });
  body.append(...keyed.map(([, row]) => row));
}

function sortKey(cell) {
  const value = cell.dataset.value;
  if (value !== undefined) return value === "" ? null : Number(value);
  return cell.textContent.trim() || null;
}

document.querySelectorAll("table.sortable").forEach(sortable);

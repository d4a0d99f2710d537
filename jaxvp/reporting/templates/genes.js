// The table of all genes: search, filter, sort. Of 20,000 rows only those in sight are in the page;
// the rows before and after them are two empty rows of the height that is missing. Whatever comes
// from the data is written by textContent, so that a name is never HTML.
"use strict";
(() => {
  const table = document.getElementById("gene-table");
  if (!table) return;
  const data = JSON.parse(document.getElementById("gene-data").textContent);
  const at = (id) => document.getElementById(id);
  const box = at("gene-box"), body = table.tBodies[0], shown = at("shown"), form = at("controls");
  const search = at("search"), status = at("status"), singular = at("singular-filter");
  const heads = [...table.querySelectorAll("thead th[aria-sort]")];
  const genes = data.names.length, lower = data.names.map((name) => name.toLowerCase());
  const SPARE = 12; // rows beyond those in sight
  const ON_PAPER = 36; // rows that are printed: a page
  const DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz";
  const statusOf = Array.from(data.status, (digit) => data.statuses[DIGITS.indexOf(digit)]);
  const fitted = (gene) => data.components.length > 0 && data.components[0].shares[gene] !== null;
  const columns = table.querySelectorAll("colgroup col").length;

  let order = null; // all genes as they are sorted; null: as they came
  let view = []; // those of them that search and filters leave
  let sorted = null; // {head, direction}
  let height = 30; // of a row
  let range = ""; // what is in the page

  // Text

  const text = (share) => share === null ? "–" : share === 0 ? "0"
    : share < 10 ? "<\u20090.1" : (share / 100).toFixed(1);
  const count = (number) => number.toLocaleString("en-US");

  // Rows

  function cell(row, content, name, tag = "td") {
    const made = document.createElement(tag);
    made.textContent = content;
    if (name) made.className = name;
    row.append(made);
    return made;
  }

  function bar(row, gene) {
    const place = cell(row, "", "bar");
    if (!fitted(gene)) return;
    const strip = document.createElement("span");
    strip.className = "composition";
    strip.setAttribute("aria-hidden", "true"); // the numbers stand beside it
    let from = 0;
    const stops = data.components.map((component) => {
      const start = from;
      from += component.shares[gene] / 100;
      return `${component.colour} ${start.toFixed(2)}% ${from.toFixed(2)}%`;
    });
    strip.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
    place.append(strip);
  }

  function row(place) {
    const gene = view[place], made = document.createElement("tr");
    made.setAttribute("aria-rowindex", String(place + 2));
    const name = cell(made, data.names[gene], "", "th");
    name.scope = "row";
    name.title = data.names[gene];
    bar(made, gene);
    for (const component of data.components) cell(made, text(component.shares[gene]));
    if (!fitted(gene)) made.className = "failed";
    cell(made, statusOf[gene], "words").title = statusOf[gene];
    if (data.singular !== null) {
      cell(made, !fitted(gene) ? "–" : data.singular[gene] === "1" ? "yes" : "no", "words");
    }
    if (data.observations !== null) cell(made, count(data.observations[gene]));
    return made;
  }

  function space(rows) {
    const made = document.createElement("tr"), inside = document.createElement("td");
    made.className = "space";
    made.setAttribute("aria-hidden", "true");
    inside.colSpan = columns;
    inside.style.height = `${rows * height}px`;
    made.append(inside);
    return made;
  }

  function put(first, last) {
    const rows = [];
    for (let place = first; place < last; place++) rows.push(row(place));
    if (first > 0) rows.unshift(space(first));
    if (last < view.length) rows.push(space(view.length - last));
    if (!view.length) {
      const none = document.createElement("tr");
      cell(none, "No gene is left: reset, or search for less.", "words").colSpan = columns;
      rows.push(none);
    }
    body.replaceChildren(...rows);
  }

  function draw() {
    const first = Math.max(0, Math.floor(box.scrollTop / height) - SPARE);
    const last = Math.min(view.length, Math.ceil((box.scrollTop + box.clientHeight) / height) + SPARE);
    const wanted = `${first} ${last}`;
    if (wanted === range) return;
    range = wanted;
    put(first, last);
  }

  function redraw() {
    range = "";
    table.setAttribute("aria-rowcount", String(view.length + 1));
    draw();
    const one = body.querySelector("tr[aria-rowindex]");
    const measured = one ? one.getBoundingClientRect().height : height;
    if (measured && Math.abs(measured - height) > 0.01) { // letters of another size
      height = measured;
      range = "";
      draw();
    }
  }

  // Sort

  const keys = {
    share: (head) => data.components[Number(head.dataset.place)].shares,
    observations: () => data.observations,
    singular: () => Array.from(data.singular, (one, gene) => fitted(gene) ? Number(one) : null),
    name: () => ranks(data.names),
    status: () => ranks(statusOf),
  };

  function ranks(texts) {
    const compare = new Intl.Collator("en", { numeric: true }).compare;
    const different = [...new Set(texts)].sort(compare);
    const rank = new Map(different.map((one, place) => [one, place]));
    return texts.map((one) => rank.get(one));
  }

  function sort(head, direction) {
    for (const other of heads) other.setAttribute("aria-sort", "none");
    sorted = head && { head, direction };
    order = null;
    if (!head) return;
    head.setAttribute("aria-sort", direction);
    const key = keys[head.dataset.sort](head), sign = direction === "ascending" ? 1 : -1;
    order = Array.from({ length: genes }, (_, gene) => gene);
    // Genes without a value come last either way; equal ones stay as they came.
    order.sort((a, b) => key[a] === null || key[b] === null
      ? (key[a] === null) - (key[b] === null)
      : sign * (key[a] - key[b]));
  }

  function turn(head) {
    const numbers = head.dataset.sort !== "name" && head.dataset.sort !== "status";
    const first = numbers ? "descending" : "ascending";
    const other = numbers ? "ascending" : "descending";
    const again = sorted && sorted.head === head && sorted.direction === first;
    sort(head, again ? other : first);
    filter();
  }

  // Search and filter

  function filter() {
    const words = search.value.toLowerCase().split(",").map((one) => one.trim()).filter(Boolean);
    const wanted = status.value, flag = singular ? singular.value : "";
    view = [];
    for (let place = 0; place < genes; place++) {
      const gene = order ? order[place] : place;
      if (wanted === "!" ? fitted(gene) : wanted && statusOf[gene] !== wanted) continue;
      if (flag && !(fitted(gene) && data.singular[gene] === flag)) continue;
      if (words.length && !words.some((word) => lower[gene].includes(word))) continue;
      view.push(gene);
    }
    box.scrollTop = 0;
    const how = sorted ? `, by ${sorted.head.textContent.trim()}, ${sorted.direction}` : "";
    shown.textContent = `${count(view.length)} of ${count(genes)} genes${how}`;
    redraw();
  }

  for (const head of heads) {
    head.querySelector("button").addEventListener("click", () => turn(head));
  }
  search.addEventListener("input", filter);
  for (const choice of [status, singular]) {
    if (choice) choice.addEventListener("change", filter);
  }
  form.addEventListener("reset", () => {
    sort(null);
    setTimeout(filter); // the controls are empty only then
  });
  for (const link of document.querySelectorAll("a[data-status]")) {
    link.addEventListener("click", () => {
      form.reset();
      setTimeout(() => {
        status.value = link.dataset.status;
        filter();
      });
    });
  }
  box.addEventListener("scroll", () => requestAnimationFrame(draw), { passive: true });
  addEventListener("resize", redraw);

  // Paper has no scroll bar: the first rows of what is seen, and how many there are.

  addEventListener("beforeprint", () => {
    const rows = Math.min(view.length, ON_PAPER);
    put(0, rows);
    for (const empty of body.querySelectorAll(".space")) empty.remove();
    at("printed").textContent = rows < view.length
      ? `Printed are the first ${count(rows)} of ${count(view.length)} genes.` : "";
  });
  addEventListener("afterprint", redraw);

  filter();
  performance.mark("genes-ready");
})();

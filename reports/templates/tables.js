// Tables: sorted by a click on a heading, filtered by words; commands copied by a click.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const table = head.closest("table");
    const place = [...head.parentElement.children].indexOf(head);
    const numeric = head.dataset.type === "number";
    const sorted = head.getAttribute("aria-sort");
    const first = head.dataset.better === "higher" ? "descending" : "ascending";
    const order = sorted === "none" ? first : sorted === "ascending" ? "descending" : "ascending";
    for (const other of head.parentElement.children) other.setAttribute("aria-sort", "none");
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const key = (row) => row.cells[place].dataset.sort; // undefined for n/a, which is last in either order
    const rows = [...table.tBodies[0].rows];
    rows.sort((a, b) => {
      const [x, y] = [key(a), key(b)];
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      return sign * (numeric ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true }));
    });
    table.tBodies[0].append(...rows);
  });
}
for (const label of document.querySelectorAll(".filter")) {
  const [input, count] = [label.querySelector("input"), label.querySelector("output")];
  const rows = [...document.getElementById(label.dataset.table).tBodies[0].rows];
  label.hidden = rows.length < 4; // few rows are seen at a glance
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const cells = [...row.cells].map((cell) => cell.firstChild?.textContent.toLowerCase() ?? "");
      row.hidden = !words.every((word) => cells.some((cell) => cell.includes(word)));
    }
    const left = rows.filter((row) => !row.hidden).length;
    count.textContent = words.length ? `${left} of ${rows.length}` : "";
  });
}
for (const button of document.querySelectorAll("button.copy")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const code = button.parentElement.querySelector("code");
    const label = button.textContent;
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(code); // no clipboard here: leave it selected
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = label; }, 1500);
  });
}
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details")) part.open = true;
});

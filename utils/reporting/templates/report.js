
"use strict";
(() => {
  const DASH = "–";
  const NUMBER = /^[-−+]?(\d[\d,]*)?\.?\d+(e[-+]?\d+)?/i;
  const WHOLE_NUMBER = /^[-−+]?(\d[\d,]*)?\.?\d+(e[-+]?\d+)?\s*%?$/i;
  const FORMULA = /^[=+\-@\t\r＝＋－＠]/;

  const status = document.createElement("p");
  status.className = "status";
  status.setAttribute("role", "status");
  document.body.append(status);

  function makeButton(label, name, onClick) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = name;
    button.textContent = label;
    button.addEventListener("click", onClick);
    return button;
  }

  async function copy(text, what) {
    let copied = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Pages opened from a disk have no clipboard in some browsers.
      const area = document.createElement("textarea");
      area.value = text;
      document.body.append(area);
      area.select();
      copied = document.execCommand("copy");
      area.remove();
    }
    status.textContent = copied ? `${what} copied.` : "The browser does not allow copying.";
  }

  const textOf = (cell) => (cell.dataset.text ?? cell.textContent).trim();

  function csvCell(text) {
    // A spreadsheet would run a cell that begins like a formula.
    const safe = FORMULA.test(text) && !WHOLE_NUMBER.test(text) ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }

  function toCsv(table) {
    const lines = [];
    for (const row of table.rows) {
      lines.push([...row.cells].map((cell) => csvCell(textOf(cell))).join(","));
    }
    return `${lines.join("\r\n")}\r\n`;
  }

  function numberOf(text) {
    const match = NUMBER.exec(text);
    return match ? Number(match[0].replaceAll(",", "").replace("−", "-")) : NaN;
  }

  function sortKeys(rows, column, isText) {
    const texts = rows.map((row) => textOf(row.cells[column]));
    const present = texts.filter((text) => text !== DASH && text !== "");
    const pattern = isText ? WHOLE_NUMBER : NUMBER;
    if (present.every((text) => pattern.test(text))) {
      return texts.map((text) => (text === DASH ? NaN : numberOf(text)));
    }
    return texts;
  }

  function compare(a, b) {
    if (typeof a === "string") return a.localeCompare(b);
    return a - b;
  }

  function sortBy(table, header) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const column = header.cellIndex;
    const sign = header.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const keys = sortKeys(rows, column, header.classList.contains("text"));
    const order = rows.map((_, index) => index);
    order.sort((a, b) => {
      // What was not measured stays at the end.
      const missing = Number(Number.isNaN(keys[a])) - Number(Number.isNaN(keys[b]));
      return missing || sign * compare(keys[a], keys[b]) || a - b;
    });
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    body.append(...order.map((index) => rows[index]));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.rows[0].cells) {
      header.dataset.text = header.textContent.trim();
      const button = makeButton(header.dataset.text, "sort", () => sortBy(table, header));
      header.replaceChildren(button);
    }
    const title = table.caption.textContent.trim();
    const button = makeButton("Copy as CSV", "copy", () => copy(toCsv(table), "The table was"));
    button.setAttribute("aria-label", `Copy as CSV: ${title}`);
    table.caption.append(" ", button);
  }

  for (const command of document.querySelectorAll("code.command")) {
    const text = command.textContent;
    const button = makeButton("Copy", "copy", () => copy(text, "The command was"));
    button.setAttribute("aria-label", `Copy the command: ${text}`);
    command.after(" ", button);
  }

  const folded = document.querySelectorAll("details");
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...folded].filter((item) => !item.open);
    for (const item of opened) item.open = true;
  });
  addEventListener("afterprint", () => {
    for (const item of opened) item.open = false;
  });
})();

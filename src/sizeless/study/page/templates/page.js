"use strict";
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];

  for (const choice of all("input[name=theme]")) {
    choice.addEventListener("change", () => {
      try {
        sessionStorage.setItem("sizeless-theme", choice.id);
      } catch {
        // It holds for this page at least.
      }
    });
  }

  // Tables: a click on a header sorts, a second one the other way round. Missing values stay last.
  const words = new Intl.Collator("en", { numeric: true, sensitivity: "base" });

  function compare(one, other) {
    const [a, b] = [one.dataset.key, other.dataset.key];
    if (a !== undefined && b !== undefined) return Math.sign(Number(a) - Number(b)) || 0;
    return words.compare(one.textContent, other.textContent);
  }

  function sort(table, column, direction) {
    const body = table.tBodies[0];
    const missing = (row) => "missing" in row.cells[column].dataset;
    const rows = [...body.rows].sort((one, other) =>
      missing(one) || missing(other)
        ? missing(one) - missing(other)
        : direction * compare(one.cells[column], other.cells[column])
    );
    rows.forEach((row, place) => row.classList.toggle("extra", place >= table.dataset.rows));
    body.append(...rows);
  }

  for (const table of all("figure.table table")) {
    if (table.querySelector("td.none")) continue;
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      head.setAttribute("aria-sort", "none");
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        sort(table, column, down ? -1 : 1);
      });
    });
  }

  // Contents: close the list on small screens once a place is chosen, and mark the present one.
  const contents = document.getElementById("list_of_contents");
  if (contents) {
    const links = all("a", contents);
    const headings = links.map((link) => document.getElementById(link.hash.slice(1))
      ?? document.getElementById(decodeURIComponent(link.hash.slice(1))));
    for (const link of links) {
      link.addEventListener("click", () => {
        if (contents.matches(":popover-open")) contents.hidePopover();
      });
    }
    let marked = null;
    const mark = () => {
      const line = window.innerHeight / 3;
      const end = window.innerHeight + window.scrollY >= document.documentElement.scrollHeight - 2;
      let present = headings.findLastIndex((heading) => heading.getBoundingClientRect().top < line);
      if (end && window.scrollY > 0) present = links.length - 1;
      if (links[present] === marked) return;
      marked?.removeAttribute("aria-current");
      marked = links[present] ?? null;
      marked?.setAttribute("aria-current", "location");
    };
    let waiting = false;
    const later = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        mark();
      });
    };
    addEventListener("scroll", later, { passive: true });
    addEventListener("resize", later);
    mark();
  }

  // On paper everything is open.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    for (const part of opened) part.open = true;
  });
  addEventListener("afterprint", () => {
    for (const part of opened) part.open = false;
  });
})();

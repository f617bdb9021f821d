// What a page's attributes ask for: tables sort and filter, one task shows at a time, pictures open larger.
// Without this script the page shows everything. It loads nothing and keeps nothing.
(() => {
  "use strict";
  const make = (tag, attributes = {}, ...inside) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...inside);
    return element;
  };
  const button = (attributes, press, ...inside) => {
    const element = make("button", { type: "button", ...attributes }, ...inside);
    element.addEventListener("click", press);
    return element;
  };
  const off = (element, hide) => element.classList.toggle("off", hide); // on screens: paper shows everything
  const texts = new Intl.Collator("en", { numeric: true });
  const counted = (n) => n.toLocaleString("en");

  // The value of a cell: a number, a text, or null where it is missing.
  function valueOf(cell, kind) {
    const text = (cell.dataset.v ?? cell.textContent).trim();
    if (kind === "text") return text === "" || text === "\u2013" ? null : text;
    const found = text.replaceAll("\u2212", "-").replaceAll(",", "").match(/[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?/i);
    return found ? Number(found[0]) : null;
  }

  // Rows in the order of a column: equal ones as they stood, missing values last in both directions.
  function sorted(rows, column, kind, sign) {
    const compare = kind === "text" ? texts.compare : (a, b) => a - b;
    const all = rows.map((row) => [valueOf(row.cells[column], kind), row]);
    const known = all.filter(([value]) => value !== null).sort((a, b) => sign * compare(a[0], b[0]));
    return [...known, ...all.filter(([value]) => value === null)].map(([, row]) => row);
  }

  function table(root) {
    const bodies = [...root.tBodies].filter((body) => !("still" in body.dataset));
    const given = bodies.map((body) => [...body.rows].filter((row) => !row.classList.contains("break")));
    const heads = [...root.tHead.rows[0].cells].filter((head) => "sort" in root.dataset && head.dataset.kind);
    const first = Number(root.dataset.first ?? Infinity), last = Number(root.dataset.last ?? 0);
    const field = make("input", { type: "search", autocomplete: "off", spellcheck: "false" });
    const said = make("span", { "aria-live": "polite" });
    const names = new Map(given.flat().map((row) => [row, (row.querySelector("th") ?? row).textContent.toLowerCase()]));
    const cut = root.querySelector("tr.cut"), below = cut?.nextElementSibling; // a line that holds in the first order
    let parts = given, all = false;
    function show() {
      const wanted = field.value.trim().toLowerCase();
      let shown = 0;
      root.querySelectorAll("tr.more").forEach((row) => row.remove());
      parts.forEach((rows, i) => {
        const matching = rows.filter((row) => names.get(row).includes(wanted));
        const between = all || matching.length <= first + last ? [] : matching.slice(first, matching.length - last);
        const kept = new Set(matching);
        between.forEach((row) => kept.delete(row));
        rows.forEach((row) => off(row, !kept.has(row)));
        if (between.length) between[0].before(more(between));
        off(bodies[i], kept.size === 0);
        shown += kept.size;
      });
      if (cut) off(cut, below.classList.contains("off"));
      said.textContent = `${counted(shown)} of ${counted(names.size)} shown`;
    }
    function more(rows) {
      const press = () => {
        [all, rows[0].tabIndex] = [true, -1];
        show();
        rows[0].focus();
      };
      const shows = button({}, press, `Show ${counted(rows.length)} more`);
      return make("tr", { class: "break more" }, make("td", { colspan: rows[0].cells.length }, shows));
    }
    function sort(head) {
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      parts = given.map((rows) => sorted(rows, head.cellIndex, head.dataset.kind, ascending ? 1 : -1));
      parts.forEach((rows, i) => bodies[i].append(...rows));
      if (cut) [cut.hidden] = [head !== heads[0] || !ascending, below.before(cut)];
      show();
    }
    heads.forEach((head) => head.append(button({ class: "sort" }, () => sort(head), ...head.childNodes)));
    if (root.dataset.filter) {
      field.addEventListener("input", show);
      const label = make("label", {}, root.dataset.filter, field);
      (root.closest(".scroll") ?? root).before(make("p", { class: "find" }, label, said));
    }
    root.addEventListener("reveal", (event) => {
      if (event.target.closest("tr.off")) [all, field.value] = [true, ""];
      show();
    });
    show();
  }

  function tabs(root, index) {
    const panels = [...root.querySelectorAll(":scope > section[data-name]")];
    const buttons = panels.map((panel, i) => {
      panel.id ||= `switch-${index}-${i}`;
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", `${panel.id}-tab`);
      const tab = { role: "tab", id: `${panel.id}-tab`, "aria-controls": panel.id };
      return button(tab, () => choose(i), panel.dataset.name);
    });
    const choose = (chosen) => panels.forEach((panel, i) => {
      off(panel, i !== chosen);
      buttons[i].setAttribute("aria-selected", i === chosen);
      buttons[i].tabIndex = i === chosen ? 0 : -1;
    });
    const list = make("div", { role: "tablist", "aria-label": root.dataset.switch }, ...buttons);
    list.addEventListener("keydown", (event) => {
      const now = buttons.indexOf(document.activeElement), n = buttons.length;
      const to = { ArrowRight: (now + 1) % n, ArrowLeft: (now + n - 1) % n, Home: 0, End: n - 1 }[event.key] ?? now;
      if (to !== now) event.preventDefault();
      buttons[to].focus();
      choose(to);
    });
    panels.forEach((panel, i) => panel.addEventListener("reveal", () => choose(i)));
    if (panels.length > 1) root.prepend(list);
    choose(0);
  }

  // All pictures of the button, each with its own caption if it has one.
  const dialog = make("dialog", { "aria-labelledby": "larger" });
  function larger(pressed) {
    const pictures = [...pressed.querySelectorAll("img")].map((picture) => {
      const copy = make("img", { src: picture.src, alt: picture.alt, class: picture.naturalWidth < 64 ? "small" : "" });
      return make("figure", {}, copy, make("figcaption", {}, picture.dataset.caption ?? ""));
    });
    const close = button({ class: "close" }, () => dialog.close(), "Close");
    dialog.replaceChildren(make("p", { id: "larger" }, pressed.dataset.caption), make("div", {}, ...pictures), close);
    document.body.append(dialog);
    dialog.showModal();
  }

  // What the page's address points at is opened, shown and scrolled to.
  function reveal() {
    const target = document.querySelector(":target");
    for (let fold = target?.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
    target?.dispatchEvent(new Event("reveal", { bubbles: true }));
    target?.scrollIntoView();
  }

  document.querySelectorAll("table[data-sort], table[data-filter]").forEach(table);
  document.querySelectorAll("[data-switch]").forEach(tabs);
  document.addEventListener("click", ({ target }) => {
    if (target.closest("button.picture")) larger(target.closest("button.picture"));
    if (target.closest("a[href^='#']")) setTimeout(reveal); // when the address has changed
    if (target === dialog) dialog.close(); // beside its content
  });
  for (const event of ["hashchange", "load"]) addEventListener(event, reveal);
})();

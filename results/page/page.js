"use strict";
(() => {
  let runs, templates, states, plots, version;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const make = (name, text, attributes = {}) => {
    const node = document.createElement(name);
    if (text !== undefined) node.textContent = text;
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    return node;
  };

  // State that is kept when the page reloads, or replaces its content, during a search.
  const memory = {
    key: "digit-search " + document.title,
    read() { try { return JSON.parse(sessionStorage.getItem(this.key)) || {}; } catch { return {}; } },
    write(state) { try { sessionStorage.setItem(this.key, JSON.stringify(state)); } catch { /* no session storage */ } },
  };
  const build = (article, number, known) => {
    const run = runs[number], body = article.querySelector(".big tbody");
    const state = { sort: null, down: false, filter: "", status: "", open: [], columns: null, choosing: false, ...known };
    states.push(state);
    const rows = [...body.rows].map((row, index) => ({ row, index, text: row.textContent.toLowerCase(), ...run.rows[index] }));
    const heads = [...article.querySelectorAll(".big th")];
    const boxes = [...article.querySelectorAll(".choices input")];
    const filter = article.querySelector(".filter"), status = article.querySelector(".status"), count = article.querySelector(".count");
    // Text typed while the page loads is newer than the stored text.
    if (filter.value) state.filter = filter.value; else filter.value = state.filter;
    status.value = state.status;

    const details = (one) => {
      const facts = run.details[one.trial], row = make("tr", undefined, { class: "detail" });
      const cell = make("td", undefined, { class: "more", colspan: heads.length }), grid = make("div");
      const left = make("div"), middle = make("div"), right = make("div");
      left.append(make("h3", "Parameters that differ from the default"));
      if (facts.settings.length) {
        const list = make("dl");
        for (const [parameter, value, before] of facts.settings) list.append(make("dt", parameter), make("dd", `${value} (default ${before})`));
        left.append(list);
      } else left.append(make("p", "none"));
      left.append(make("p", `seed ${facts.seed}`, { class: "soft" }));
      middle.append(make("h3", `${run.metric} over epochs`), curve(facts.curve, run.metric));
      right.append(make("h3", "Warnings"));
      if (facts.warnings.length) {
        const list = make("ul"); facts.warnings.forEach((words) => list.append(make("li", words))); right.append(list);
      } else right.append(make("p", "none", { class: "soft" }));
      right.append(make("h3", "Train again"));
      const command = make("p", undefined, { class: "command" });
      command.append(make("code", facts.command), make("button", "copy", { type: "button", class: "copy", "data-copy": facts.command, "aria-label": "copy the command" }));
      right.append(command);
      grid.append(left, middle, right); cell.append(grid); row.append(cell);
      return row;
    };

    const toggle = (one, wanted) => {
      const button = one.row.querySelector(".open"), is = button.getAttribute("aria-expanded") === "true";
      if (is === wanted) return;
      button.setAttribute("aria-expanded", String(wanted));
      if (wanted) one.row.after(details(one)); else one.row.nextElementSibling.remove();
      state.open = rows.filter((other) => other.row.querySelector(".open").getAttribute("aria-expanded") === "true").map((other) => other.trial);
    };

    const order = () => {
      const opened = state.open.slice();
      rows.forEach((one) => toggle(one, false));
      const place = state.sort, sign = state.down ? -1 : 1;
      const sorted = place === null ? rows.slice() : rows.slice().sort((a, b) => {
        const x = a.values[place], y = b.values[place];
        if (x === null || y === null) return (x === null) - (y === null) || a.index - b.index; // missing values are last
        return (x < y ? -1 : x > y ? 1 : 0) * sign || a.index - b.index;
      });
      const all = document.createDocumentFragment();
      sorted.forEach((one) => all.append(one.row));
      body.append(all);
      rows.forEach((one) => { if (opened.includes(one.trial)) toggle(one, true); });
      heads.forEach((head, index) => {
        if (index === place) head.setAttribute("aria-sort", state.down ? "descending" : "ascending"); else head.removeAttribute("aria-sort");
      });
      article.querySelector(".big").classList.toggle("sorted", place !== null);
    };

    const sift = () => {
      const words = state.filter.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((one) => {
        const stays = words.every((word) => one.text.includes(word)) && (!state.status || one.status === state.status);
        one.row.classList.toggle("gone", !stays);
        if (!stays) toggle(one, false); else shown += 1;
      });
      count.textContent = shown === rows.length ? `${shown} trials` : `${shown} of ${rows.length} trials`;
    };

    const columns = () => {
      boxes.forEach((box, index) => {
        if (state.columns) box.checked = state.columns.includes(index);
        const off = !box.checked;
        if (heads[index].classList.contains("off") === off) return;
        heads[index].classList.toggle("off", off);
        rows.forEach((one) => one.row.cells[index].classList.toggle("off", off));
      });
    };

    heads.forEach((head, index) => head.querySelector("button").addEventListener("click", () => {
      const first = head.classList.contains("num"); // numbers: largest first
      if (state.sort !== index) { state.sort = index; state.down = first; }
      else if (state.down === first) state.down = !first;
      else { state.sort = null; state.down = false; } // the third click restores the original order
      order();
    }));
    body.addEventListener("click", (event) => {
      const button = event.target.closest(".open");
      const one = button && rows.find((other) => other.row === button.closest("tr"));
      if (one) toggle(one, button.getAttribute("aria-expanded") !== "true");
    });
    filter.addEventListener("input", () => { state.filter = filter.value; sift(); });
    status.addEventListener("change", () => { state.status = status.value; sift(); });
    boxes.forEach((box) => box.addEventListener("change", () => {
      state.columns = boxes.flatMap((other, index) => other.checked ? [index] : []); columns();
    }));
    article.querySelector(".csv").addEventListener("click", () => {
      const link = make("a", "", { href: URL.createObjectURL(new Blob([run.csv], { type: "text/csv" })), download: `${run.name}.csv` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
    const choices = article.querySelector("details.columns");
    choices.open = state.choosing;
    choices.addEventListener("toggle", () => { state.choosing = choices.open; });
    columns(); if (state.sort !== null || state.open.length) order(); sift();
  };

  function curve(points, metric) {
    const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg");
    const add = (name, attributes, text) => {
      const node = document.createElementNS(space, name);
      for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
      if (text !== undefined) node.textContent = text;
      svg.append(node);
    };
    const shown = points.filter(([, value]) => value !== null);
    svg.setAttribute("viewBox", "0 0 320 120"); svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", shown.length ? shown.map(([epoch, value]) => `epoch ${epoch}: ${value.toFixed(3)}`).join(", ") : "no score");
    if (!shown.length) { add("text", { x: 10, y: 60 }, "no score"); return svg; }
    const values = shown.map(([, value]) => value), low = Math.min(...values), high = Math.max(...values, low + 0.02);
    const first = shown[0][0], last = Math.max(shown.at(-1)[0], first + 1);
    const x = (epoch) => 40 + 260 * (epoch - first) / (last - first), y = (value) => 95 - 80 * (value - low) / (high - low);
    add("path", { d: shown.map(([epoch, value], index) => `${index ? "L" : "M"}${x(epoch)} ${y(value)}`).join("") });
    shown.forEach(([epoch, value]) => add("circle", { cx: x(epoch), cy: y(value), r: 3 }));
    add("text", { x: 2, y: y(high) + 4 }, high.toFixed(3)); add("text", { x: 2, y: y(low) + 4 }, low.toFixed(3));
    add("text", { x: x(first), y: 115, "text-anchor": "middle" }, `epoch ${first}`);
    if (shown.length > 1) add("text", { x: x(shown.at(-1)[0]), y: 115, "text-anchor": "middle" }, String(shown.at(-1)[0]));
    return svg;
  }

  document.addEventListener("click", async (event) => {
    const button = event.target.closest(".copy");
    if (!button) return;
    try { await navigator.clipboard.writeText(button.dataset.copy); button.textContent = "copied"; }
    catch { // not allowed here: select the text, so that the user can copy it
      const range = document.createRange(); range.selectNodeContents(button.parentElement.querySelector("code"));
      getSelection().removeAllRanges(); getSelection().addRange(range); button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });

  // A table or figure that goes on to the right has a faded edge, and the leaderboard says so.
  const edge = (one) => {
    const cut = one.scrollLeft + one.clientWidth < one.scrollWidth - 1;
    one.classList.toggle("cut", cut);
    const hint = one.closest(".board")?.querySelector(".sideways");
    if (hint) hint.hidden = !cut;
  };
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => edge(entry.target.closest(".scroll"))));
  document.addEventListener("scroll", (event) => { if (event.target.classList?.contains("scroll")) edge(event.target); }, true);

  // Plotly is loaded and figures are drawn when they become visible, so that the table appears first.
  const library = document.getElementById("plotly");
  const draw = (plot, template) => {
    const figure = runs[plot.closest("article").dataset.run].figures[plot.dataset.picture];
    const layout = { ...figure.layout, template, autosize: true };
    if (!window.Plotly) document.head.append(make("script", library.textContent));
    plot.dataset.drawn = "yes";
    return Plotly.react(plot, figure.data, layout, { responsive: true, displaylogo: false, displayModeBar: false }).then(() => {
      // The figure grows by a long legend: the axes keep their size, and the legend needs no scroll bar.
      const legend = plot.querySelector(".legend .scrollbox"), length = legend ? legend.getBBox().height : 0;
      if (length > 60) return Plotly.relayout(plot, { height: layout.height + length - 60, "legend.maxheight": length + 20 });
    });
  };
  const current = () => templates[dark.matches ? "dark" : "light"];
  const watcher = new IntersectionObserver((entries) => entries.forEach((entry) => {
    if (entry.isIntersecting && !entry.target.dataset.drawn) draw(entry.target, current());
  }), { rootMargin: "300px" });
  if (library) {
    dark.addEventListener("change", () => plots.filter((plot) => plot.dataset.drawn).forEach((plot) => draw(plot, current())));
    addEventListener("beforeprint", () => plots.forEach((plot) => draw(plot, templates.light)));
    addEventListener("afterprint", () => plots.forEach((plot) => draw(plot, current())));
  }

  // Everything that belongs to the content of the page, and is done again when it is replaced.
  const start = (remembered) => {
    ({ runs, templates } = JSON.parse(document.getElementById("data").textContent));
    version = document.body.dataset.live;
    states = [];
    document.querySelectorAll("article").forEach((article, number) => build(article, number, (remembered.runs || [])[number]));
    plots = [...document.querySelectorAll(".plot")];
    if (library) plots.forEach((plot) => watcher.observe(plot));
    sizes.disconnect();
    document.querySelectorAll(".scroll").forEach((one) => { sizes.observe(one); sizes.observe(one.firstElementChild); });
  };

  let typed = 0;
  const place = (node) => `${node.closest("article")?.id} ${node.getAttribute("aria-label")}`;
  const focused = () => {
    const node = document.activeElement, article = node.closest("article");
    return article && { article: article.id, tag: node.tagName, name: node.className, text: node.textContent, caret: node.selectionStart };
  };
  const keep = () => {
    const sideways = [...document.querySelectorAll(".scroll")].filter((one) => one.scrollLeft).map((one) => [place(one), one.scrollLeft]);
    const state = { runs: states, top: scrollY, focus: focused(), sideways };
    memory.write(state);
    return state;
  };
  const restore = ({ top, focus, sideways }) => {
    if (top) scrollTo(0, top);
    const before = new Map(sideways);
    document.querySelectorAll(".scroll").forEach((one) => { one.scrollLeft = before.get(place(one)) || 0; });
    const nodes = focus ? [...document.querySelectorAll(`#${focus.article} ${focus.tag}`)] : [];
    const node = nodes.find((one) => one.className === focus.name && one.textContent === focus.text);
    node?.focus({ preventScroll: true });
    if (focus?.caret >= 0) node?.setSelectionRange?.(focus.caret, focus.caret);
  };
  addEventListener("input", () => { typed = Date.now(); keep(); });
  addEventListener("pagehide", keep);
  // Nothing is replaced while the user types or selects: a half-typed word would be lost.
  const quiet = () => !document.hidden && Date.now() - typed > 3000 && document.activeElement.tagName !== "SELECT";

  const remembered = memory.read();
  start(remembered);
  const seconds = Number(document.body.dataset.watch);
  if (seconds || version) restore(remembered);
  if (seconds) setInterval(() => { if (quiet()) { keep(); location.reload(); } }, seconds * 1000);
  if (version) follow();

  // A served page: the server sends the number of each new version, and the content is replaced.
  function follow() {
    let newest = version, busy = false;
    const say = (words) => { document.getElementById("connection").textContent = words; };
    const events = new EventSource(`events${location.search}`);
    let words = "Connecting.";
    const tell = (some) => { words = some; say(words); };
    events.addEventListener("open", () => tell("Live: changes of the run appear here."));
    events.addEventListener("error", () => tell("Not connected: the server has ended, or the tunnel is closed."));
    events.addEventListener("version", (event) => { newest = event.data; });
    setInterval(async () => {
      if (newest === version || busy || !quiet()) return;
      busy = true;
      try {
        const answer = await fetch(`content${location.search}`);
        if (answer.ok && quiet()) { replace(await answer.text()); say(words); }
        else await new Promise((done) => setTimeout(done, 3000));
      } catch { /* the stream says that the server has ended */ } finally { busy = false; }
    }, 300);
  }

  function replace(text) {
    const other = new DOMParser().parseFromString(text, "text/html"), state = keep();
    if (!library && other.getElementById("plotly")) { location.reload(); return; } // the first figures
    const name = (plot) => `${plot.closest("article").id} ${plot.dataset.picture}`;
    const drawn = new Map(plots.filter((plot) => plot.dataset.drawn).map((plot) => [name(plot), plot]));
    // What the reader looks at stays where it is, also if the leaderboard above it grows.
    const mark = [...document.querySelectorAll("main section[id], main figure[id]")].filter((one) => one.getBoundingClientRect().top < innerHeight / 4).at(-1);
    const from = mark?.getBoundingClientRect().top;
    watcher.disconnect();
    for (const part of ["title", "nav", "main", "footer", "#data"]) document.querySelector(part).replaceWith(document.adoptNode(other.querySelector(part)));
    document.body.dataset.live = other.body.dataset.live;
    const again = [];
    document.querySelectorAll(".plot").forEach((plot) => { // a drawn figure stays, and is drawn anew with its new data
      const old = drawn.get(name(plot));
      if (!old) return;
      old.style.minHeight = plot.style.minHeight;
      plot.replaceWith(old);
      again.push(old);
    });
    start(state);
    again.forEach((plot) => draw(plot, current()));
    restore(state);
    const now = mark && document.getElementById(mark.id);
    if (now) scrollBy(0, now.getBoundingClientRect().top - from);
  }
})();

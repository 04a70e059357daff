/* The live page: sections come from its server as they change, and each is drawn when it comes. */
{
  const find = (id) => document.getElementById(id);
  const got = {}; // the sections as they are now, by name
  let heard = null; // when the server was, by this browser's clock [ms]
  const draw = {
    head: drawHead, state: drawState, facts: drawFacts, clock: drawClock, names: drawCells, cells: drawCells,
    lines: drawChart, items: drawItems, image: drawImage, failures: drawFailures, log: drawFailures,
    unreadable: drawUnreadable,
  };

  /* While the page is shown: a browser has six connections to a server, for all of its tabs together. */
  let source = null;
  function listen() {
    if (document.hidden) {
      source?.close();
      source = null;
      return;
    }
    if (source) return;
    source = new EventSource(`events${location.search}`);
    let fresh = true;
    source.addEventListener("open", () => {
      fresh = true;
    });
    source.addEventListener("message", (event) => {
      const sent = JSON.parse(event.data);
      if (fresh) for (const name of Object.keys(got)) if (!(name in sent)) sent[name] = null; // all of it comes first
      fresh = false;
      heard = Date.now();
      find("link").hidden = true;
      const drawn = new Set();
      for (const [name, content] of Object.entries(sent)) {
        if (content === null) delete got[name];
        else got[name] = content;
        drawn.add(name.startsWith("curve-") ? drawChart : draw[name]);
      }
      for (const one of drawn) one?.();
    });
    source.addEventListener("error", () => {
      const last = heard ? ` What is shown is as of ${new Date(heard).toLocaleTimeString()}.` : "";
      find("link").textContent = `Not connected: fedsim watch --web has ended, or the tunnel is down.${last}`;
      find("link").hidden = false;
    });
  }

  /* Elements */

  function made(tag, attributes = {}, ...children) {
    const one = tag.startsWith("svg:") || tag === "svg"
      ? document.createElementNS("http://www.w3.org/2000/svg", tag.replace("svg:", "")) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
    one.append(...children);
    return one;
  }

  const colour = (name) => getComputedStyle(find("live")).getPropertyValue(`--${name}`).trim();

  function duration(seconds) {
    const whole = Math.max(0, Math.round(seconds));
    const [hours, minutes] = [Math.floor(whole / 3600), Math.floor((whole % 3600) / 60)];
    if (whole >= 172800) return `${Math.floor(whole / 86400)} days`;
    if (hours) return `${hours} h ${minutes} min`;
    return minutes ? `${minutes} min ${whole % 60} s` : `${whole} s`;
  }

  /* Text in which a number and its unit stay on one line. */
  const together = (text) => text.replace(/(\d) (?=(m?s|min|h|dB|[kMGT]?B)\b)/g, "$1\u00a0");

  /* An estimate: to ten seconds below ten minutes, to the minute above. */
  const roughly = (seconds) => duration(seconds < 600 ? Math.max(10, 10 * Math.round(seconds / 10)) : 60 * Math.round(seconds / 60)).replace(" 0 s", "");

  /* Head and progress */

  function drawHead() {
    find("name").textContent = got.head.name;
    find("about").textContent = got.head.about;
    document.title = `${got.head.name} · fedsim watch`;
    const at = new URLSearchParams(location.search).get("at");
    find("up").hidden = !at;
    if (at) find("up").firstElementChild.href = at.includes(".") ? `?at=${at.slice(0, at.lastIndexOf("."))}` : "?";
  }

  function drawState() {
    const state = got.state;
    if (!state) return;
    find("progress").hidden = false;
    find("state").textContent = state.state;
    find("state").className = `state ${state.state.split(" ")[0]}`;
    find("reached").textContent = got.head.kind === "study" ? `${state.reached} of ${state.total} points finished`
      : `round ${state.reached} of ${state.total}`;
    find("bar").max = Math.max(1, state.total);
    find("bar").value = state.reached;
    tick();
  }

  /* What depends on the time that it is. */
  function tick() {
    const state = got.state;
    if (!state || !("written" in state)) return;
    const since = Date.now() / 1000 - state.written;
    const since_text = since < 172800 * 30 ? `${duration(since)} ago` : new Date(1000 * state.written).toLocaleDateString();
    const [left, written] = [find("left"), find("written")];
    const resume = "; fedsim run RUN/workload.yaml --out RUN --resume continues it";
    left.textContent = state.state === "running" ? (state.left_s === null ? "" : `about ${roughly(state.left_s - since)} left`)
      : state.state === "testing" ? "trained; testing, or writing the report" : state.early;
    written.textContent = `Last written ${since_text}` + (
      state.state === "running" ? (state.round_s === null ? "; the first round is not in the ledger yet." : `; a round takes ${duration(state.round_s)}.`)
        : state.state === "silent" ? "; whatever wrote it gives no sign of life, or this is a copy."
          : state.state === "stopped" || state.state === "failed" ? `${resume}.` : ".");
  }

  function drawFacts() {
    const facts = (got.facts ?? []).map(([name, text]) => made("div", {}, made("dt", {}, name), made("dd", {}, together(text))));
    find("facts").replaceChildren(...facts);
  }

  function drawClock() {
    find("clock").hidden = !got.clock;
    find("clock").querySelector("strong").textContent = got.clock ?? "";
  }

  function drawUnreadable() {
    const lines = got.unreadable ?? [];
    find("unreadable").hidden = !lines.length;
    find("unreadable").querySelector("ul").replaceChildren(...lines.map((line) => made("li", {}, line)));
    if (got.head === undefined && lines.length) find("name").textContent = "Nothing can be read";
  }

  /* Curves */

  const chosen = { measure: "psnr", axis: "round", at: null };
  const DASHES = ["", "6 4", "2 3"];
  const palette = find("live").dataset.palette.split(" ");

  function drawChart() {
    const curves = joined();
    find("quality").hidden = !curves.x.length;
    if (!curves.x.length) return;
    find("axis").hidden = !("virtual_s" in curves.block);
    const lines = got.lines.map((name, at) => ({
      name, values: curves.lines[at], dash: DASHES[Math.floor(at / palette.length) % 3],
      colour: palette[at % palette.length] === "#333333" ? "currentColor" : palette[at % palette.length],
    }));
    const many = got.lines[1] === "median site";
    if (many) lines.forEach((line, at) => Object.assign(line, { colour: palette[0], dash: "", thin: at !== 1 }));
    const known = lines.flatMap((line) => line.values).filter((value) => value !== null);
    const note = { psnr: "validation", ssim: "validation", nmse: "validation", loss: "training" }[chosen.measure];
    find("chart-note").textContent = known.length
      ? `Mean over a site's clients, ${note}${many ? "; the band has the middle 80 % of sites" : ""}. Point at a round to read its values.`
      : "Not measured so far: see metrics.every.";
    drawLines(find("chart"), curves.x, lines, many);
    drawLegend(lines, curves);
  }

  /* The blocks of rounds that came, as one. */
  function joined() {
    const blocks = Object.keys(got).filter((name) => name.startsWith("curve-"))
      .sort((one, two) => Number(one.slice(6)) - Number(two.slice(6))).map((name) => got[name]);
    const block = blocks[0] ?? {};
    const axis = chosen.axis in block ? chosen.axis : "round";
    const lines = (got.lines ?? []).map((_, at) => blocks.flatMap((one) => one[chosen.measure][at]));
    return { block, axis, x: blocks.flatMap((one) => one[axis]), rounds: blocks.flatMap((one) => one.round), lines };
  }

  function ticks(low, high, count) {
    const rough = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
    const found = [];
    for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toPrecision(12)));
    return found;
  }

  function drawLines(svg, x, lines, many) {
    const [width, height] = [svg.clientWidth, svg.clientHeight];
    const box = { left: 52, right: width - 10, top: 8, bottom: height - 38 };
    const known = lines.flatMap((line) => line.values).filter((value) => value !== null);
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    if (!known.length) return svg.replaceChildren();
    let [low, high] = [known.reduce((a, b) => Math.min(a, b)), known.reduce((a, b) => Math.max(a, b))];
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    [low, high] = [low - room, high + room];
    const [from, to] = x.length > 1 ? [x[0], x[x.length - 1]] : [x[0] - 1, x[0] + 1];
    const across = (value) => box.left + (value - from) / (to - from) * (box.right - box.left);
    const up = (value) => box.bottom - (value - low) / (high - low) * (box.bottom - box.top);
    const parts = [];
    for (const value of ticks(low, high, 7)) {
      parts.push(made("svg:line", { class: "rule", x1: box.left, x2: box.right, y1: up(value), y2: up(value) }));
      parts.push(made("svg:text", { x: box.left - 6, y: up(value) + 4, "text-anchor": "end" }, String(value)));
    }
    const unit = chosen.axis === "virtual_s" ? timeUnit(to) : [1, "round"];
    for (const value of ticks(from / unit[0], to / unit[0], Math.max(3, Math.floor(width / 90)))) {
      if (unit[1] === "round" && !Number.isInteger(value)) continue;
      parts.push(made("svg:text", { x: across(value * unit[0]), y: box.bottom + 16, "text-anchor": "middle" }, value.toLocaleString("en")));
    }
    parts.push(made("svg:text", { x: (box.left + box.right) / 2, y: height - 4, "text-anchor": "middle" },
      unit[1] === "round" ? "round" : `simulated time [${unit[1]}]`));
    if (many) parts.push(band(x, lines, across, up));
    for (const line of lines) {
      const points = line.values.flatMap((value, at) => value === null ? [] : [[across(x[at]), up(value)]]);
      const path = points.map(([a, b], at) => `${at ? "L" : "M"}${a.toFixed(1)} ${b.toFixed(1)}`).join("");
      if (!line.thin) parts.push(made("svg:path", { class: "line", d: path, stroke: line.colour, "stroke-dasharray": line.dash }));
      if (points.length <= 20 && !line.thin) {
        parts.push(...points.map(([a, b]) => made("svg:circle", { cx: a, cy: b, r: 2.5, fill: line.colour })));
      }
    }
    if (chosen.at !== null && chosen.at < x.length) {
      const at = across(x[chosen.at]);
      parts.push(made("svg:line", { class: "at", x1: at, x2: at, y1: box.top, y2: box.bottom }));
    }
    svg.replaceChildren(...parts);
    svg.dataset.rounds = x.length;
    svg.onpointermove = (event) => point(x.map(across), event.offsetX);
  }

  function band(x, lines, across, up) {
    const edge = (line) => line.values.flatMap((value, at) => value === null ? [] : [`${across(x[at]).toFixed(1)} ${up(value).toFixed(1)}`]);
    return made("svg:path", { class: "band", fill: palette[0], d: `M${[...edge(lines[0]), ...edge(lines[2]).reverse()].join("L")}Z` });
  }

  function timeUnit(seconds) {
    return [[86400, "days"], [3600, "h"], [60, "min"]].find(([size]) => seconds >= 3 * size) ?? [1, "s"];
  }

  function point(places, x) {
    const nearest = places.reduce((best, place, at) => Math.abs(place - x) < Math.abs(places[best] - x) ? at : best, 0);
    if (nearest === chosen.at) return;
    chosen.at = nearest;
    requestAnimationFrame(drawChart);
  }

  /* The values at the round that is pointed at, or the newest ones. */
  function drawLegend(lines, curves) {
    const pointed = chosen.at !== null && chosen.at < curves.x.length;
    const value = (line) => pointed ? line.values[chosen.at] : line.values.findLast((one) => one !== null);
    const items = lines.map((line) => {
      const stroke = { class: "line", x1: 0, x2: 26, y1: 7, y2: 7, stroke: line.colour, "stroke-width": line.thin ? 8 : 3,
        "stroke-dasharray": line.dash, opacity: line.thin ? 0.3 : 1 };
      const shown = value(line);
      return made("li", {}, made("svg", { viewBox: "0 0 26 14", "aria-hidden": "true" }, made("svg:line", stroke)),
        `${line.name} ${shown === null || shown === undefined ? "–" : Number(shown.toPrecision(4))}`);
    });
    const where = pointed ? `round ${curves.rounds[chosen.at]}:` : "newest:";
    find("legend").replaceChildren(made("li", { class: "soft" }, where), ...items);
  }

  for (const choice of document.querySelectorAll(".choices .switch")) {
    choice.addEventListener("change", (event) => {
      chosen[event.target.name === "axis" ? "axis" : "measure"] = event.target.value;
      drawChart();
    });
  }
  find("axis").hidden = true; // report.js shows every switch
  find("chart").addEventListener("pointerleave", () => {
    chosen.at = null;
    drawChart();
  });

  /* The grid of clients, or of a study's points */

  const MEANINGS = {
    run: { t: ["trained", "trained in the newest round"], d: ["failed", "failed in the newest round"], l: ["late", "too late for the newest round"],
      u: ["away", "unavailable in the newest round"], b: ["earlier", "took part before"], f: ["failed-earlier", "failed when it last took part"],
      n: ["never", "has not taken part"] },
    items: { r: ["running", "running"], t: ["trained", "finished"], d: ["failed", "failed, damaged or gone"], s: ["late", "stopped, or silent"],
      b: ["away", "a study"], n: ["never", "not started, or not read yet"] },
  };
  const grid = { columns: 1, side: 10, at: null };

  function drawCells() {
    const [names, cells] = [got.names, got.cells];
    const empty = !names?.length || !cells?.states.length;
    find("grid").hidden = empty;
    if (empty) return;
    const run = got.head?.kind === "run";
    const meanings = MEANINGS[run ? "run" : "items"];
    const counts = {};
    for (const letter of cells.states) counts[letter] = (counts[letter] ?? 0) + 1;
    const all = cells.states.length === cells.clients;
    find("grid-title").textContent = !run ? (got.head.kind === "study" ? "Points" : "Runs and studies")
      : all ? `Clients, round ${cells.round}` : `The cohort of round ${cells.round}: ${names.length.toLocaleString("en")} of ${cells.clients.toLocaleString("en")} clients`;
    find("states").replaceChildren(...Object.entries(meanings).filter(([letter]) => counts[letter]).map(([letter, [tone, text]]) =>
      made("li", {}, made("svg", { viewBox: "0 0 26 14", "aria-hidden": "true" }, made("svg:rect", { x: 6, width: 14, height: 14, rx: 2, fill: `var(--${tone})` })),
        `${text}: ${counts[letter].toLocaleString("en")}`)));
    find("cells").classList.toggle("linked", !run);
    find("cells").setAttribute("aria-label", find("grid-title").textContent);
    paint(meanings);
    tell();
  }

  /* All cells: as large as the page is wide for it, and small enough that many fit. */
  function paint(meanings) {
    const [canvas, states] = [find("cells"), got.cells.states];
    const width = canvas.clientWidth;
    grid.side = Math.min(26, Math.max(4, Math.floor(Math.sqrt(width * 420 / states.length))));
    grid.columns = Math.max(1, Math.floor(width / grid.side));
    const height = Math.ceil(states.length / grid.columns) * grid.side;
    const sharp = window.devicePixelRatio || 1;
    [canvas.width, canvas.height] = [Math.round(width * sharp), Math.round(height * sharp)];
    canvas.style.height = `${height}px`;
    const context = canvas.getContext("2d");
    context.setTransform(sharp, 0, 0, sharp, 0, 0);
    const gap = grid.side > 6 ? 2 : 1;
    const places = {};
    for (let at = 0; at < states.length; at += 1) (places[states[at]] ??= []).push(at);
    for (const [letter, those] of Object.entries(places)) {
      context.fillStyle = colour(meanings[letter][0]);
      for (const at of those) {
        context.fillRect(at % grid.columns * grid.side, Math.floor(at / grid.columns) * grid.side, grid.side - gap, grid.side - gap);
      }
    }
    if (grid.at !== null && grid.at < states.length) {
      context.strokeStyle = colour("text");
      context.lineWidth = 2;
      context.strokeRect(grid.at % grid.columns * grid.side, Math.floor(grid.at / grid.columns) * grid.side, grid.side - gap, grid.side - gap);
    }
    canvas.dataset.drawn = states.length;
  }

  function tell() {
    const meanings = MEANINGS[got.head?.kind === "run" ? "run" : "items"];
    const at = grid.at;
    const known = at !== null && at < got.cells.states.length;
    find("cell").textContent = known ? `${got.names[at]}: ${meanings[got.cells.states[at]][1]}`
      : `Point at a cell to read its name${got.head?.kind === "run" ? "" : "; a click opens it"}.`;
  }

  function pick(at) {
    if (!got.cells || at < 0 || at >= got.cells.states.length) return;
    grid.at = at;
    requestAnimationFrame(drawCells);
  }

  function open(at) {
    if (got.head?.kind === "run" || at === null) return;
    if ("sft".includes(got.cells.states[at]) || "rdb".includes(got.cells.states[at])) location.search = addressOf(at);
  }

  function addressOf(number) {
    const at = new URLSearchParams(location.search).get("at");
    return `?at=${at ? `${at}.` : ""}${number}`;
  }

  find("cells").addEventListener("pointermove", (event) => {
    const column = Math.floor(event.offsetX / grid.side);
    if (column < grid.columns) pick(Math.floor(event.offsetY / grid.side) * grid.columns + column);
  });
  find("cells").addEventListener("click", () => open(grid.at));
  find("cells").addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid.columns, ArrowDown: grid.columns }[event.key];
    if (event.key === "Enter") open(grid.at);
    else if (by) pick((grid.at ?? -by) + by);
    else return;
    event.preventDefault();
  });

  /* Points of a study, runs of a folder */

  function drawItems() {
    const items = got.items;
    find("items").hidden = !items;
    if (!items) return;
    find("items-title").textContent = got.head.kind === "study" ? "Points in detail" : "Runs and studies in detail";
    find("items").querySelector("tbody").replaceChildren(...items.rows.map(([at, name, state, reached, total, psnr, left, note]) => {
      const started = !["not started", "not read yet", "damaged", "gone"].includes(state);
      const title = started ? made("a", { href: addressOf(at) }, name) : name;
      const round = total === null ? "–" : `${reached} of ${total}`;
      const bar = total === null ? [] : [made("progress", { max: total, value: reached, "aria-label": `rounds of ${name}` })];
      return made("tr", {}, made("td", {}, title),
        made("td", { class: "left" }, made("span", { class: `state ${state.split(" ")[0]}` }, state)), made("td", {}, round, ...bar),
        made("td", {}, psnr === null ? "–" : psnr.toFixed(2)), made("td", {}, left === null ? "–" : roughly(left)), made("td", { class: "left note" }, note));
    }));
    find("items-note").textContent = items.rows.length < items.all ? `The first ${items.rows.length} of ${items.all}; running ones come first.` : "";
  }

  /* Images, failures, warnings */

  function drawImage() {
    find("image").hidden = got.head?.kind !== "run";
    const box = find("image").querySelector("div");
    if (!got.image) {
      box.replaceChildren(made("p", { class: "soft" }, "Not yet: images are written by the report at the end of a run, "
        + "and by fedsim evaluate RUN --save-images."));
      return;
    }
    box.innerHTML = got.image; // the server's own markup, with all content escaped
    box.querySelectorAll(".viewer").forEach(startViewer);
  }

  function drawFailures() {
    find("failures").hidden = got.head?.kind !== "run" || !got.failures;
    if (!got.failures) return;
    const { counts, rows } = got.failures;
    find("failure-counts").textContent = counts.length
      ? counts.map(([action, count]) => `${count.toLocaleString("en")} ${action}`).join(", ") + (rows.length < counts.reduce((sum, [, count]) => sum + count, 0) ? `; the newest ${rows.length}:` : ":")
      : (got.log?.length ? "" : "None so far.");
    find("failure-table").hidden = !rows.length;
    find("failure-table").querySelector("tbody").replaceChildren(...rows.map((row) =>
      made("tr", {}, ...row.map((text, at) => made("td", at ? { class: at === row.length - 1 ? "left note" : "left" } : {}, text || "–")))));
    find("log").replaceChildren(...(got.log ?? []).map(([when, kind, text]) =>
      made("li", { class: kind === "warning" ? "" : "error" }, made("span", { class: "soft" }, `${when} ${kind === "ended" ? "" : kind} `), text)));
  }

  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === width) return;
    width = contentRect.width;
    drawChart();
    drawCells();
  }).observe(find("live"));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCells);
  setInterval(tick, 1000);
  document.addEventListener("visibilitychange", listen);
  listen();
}

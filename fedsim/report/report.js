"use strict";

/* Tables with the class `sortable`: a click on a head, or Enter on it, sorts by the cells' data-sort. */
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.querySelectorAll("thead th")];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => sortBy(table, heads, column));
  });
}

function sortBy(table, heads, column) {
  const down = heads[column].getAttribute("aria-sort") === "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  rows.sort((one, two) => compare(one.cells[column].dataset.sort, two.cells[column].dataset.sort, down));
  body.append(...rows);
}

/* Numbers by value, text by letters; what is missing comes last either way. */
function compare(one, two, down) {
  const missing = (text) => text === "" || text === "nan";
  if (missing(one) || missing(two)) return missing(one) - missing(two);
  const [a, b] = [Number(one), Number(two)];
  const order = Number.isNaN(a) || Number.isNaN(b) ? one.localeCompare(two) : a - b;
  return down ? -order : order;
}

/* What is wider than its box fades at the right edge, with a hint below, until it is scrolled to its end. */
for (const box of document.querySelectorAll(".scroll")) {
  const hint = document.createElement("p");
  hint.className = "hint";
  hint.textContent = "scroll sideways for more →";
  box.after(hint);
  const look = () => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
  box.addEventListener("scroll", look);
  new ResizeObserver(look).observe(box);
}

/* The switch of the quality: what is of another one (class of-...) is hidden by the style sheet. */
for (const choice of document.querySelectorAll(".switch")) {
  choice.hidden = false;
  const show = () => {
    document.body.dataset.quality = choice.querySelector("input:checked").value;
  };
  choice.addEventListener("change", show);
  show();
}

/* The image viewer: four canvases that show the same part of the same slice. */
document.querySelectorAll(".viewer").forEach(startViewer);

function startViewer(viewer) {
  const find = (name) => viewer.querySelector(name);
  const slider = find(".slice");
  const stacks = [...viewer.querySelectorAll(".stacks > div")];
  const canvases = [...viewer.querySelectorAll("canvas")];
  const view = { zoom: 1, x: 0.5, y: 0.5 }; // the centre of what is seen, in image widths and heights
  let stack = null;
  viewer.hidden = false;
  viewer.previousElementSibling.hidden = true; // says that a script is needed

  function pictureOf(kind) {
    const method = kind === "reconstruction" || kind === "error" ? find(".method").value : "";
    return [...stack.children].find((image) => image.dataset.kind === kind && image.dataset.method === method);
  }

  function choose() {
    stack = stacks[find(".stack").selectedIndex];
    const before = find(".method").value;
    const methods = stack.dataset.methods.split("\n");
    find(".method").replaceChildren(...methods.map((name) => new Option(name)));
    if (methods.includes(before)) find(".method").value = before;
    for (const canvas of canvases) canvas.style.aspectRatio = stack.dataset.aspect;
    const slices = stack.dataset.slices.split(" ");
    slider.max = slices.length - 1;
    slider.value = Math.floor(slices.length / 2);
    find(".note").textContent = stack.dataset.note;
    draw();
  }

  function draw() {
    const half = 0.5 / view.zoom;
    view.x = Math.min(Math.max(view.x, half), 1 - half);
    view.y = Math.min(Math.max(view.y, half), 1 - half);
    const slices = stack.dataset.slices.split(" ");
    find(".at").textContent = `${slices[slider.value]} (${Number(slider.value) + 1} of ${slices.length})`;
    slider.setAttribute("aria-valuetext", `slice ${slices[slider.value]}`);
    find(".zoom").textContent = `${view.zoom}×`;
    viewer.classList.toggle("zoomed", view.zoom > 1);
    canvases.forEach(drawOne);
  }

  function drawOne(canvas) {
    const image = pictureOf(canvas.dataset.kind);
    const [columns, height, width] = ["columns", "height", "width"].map((key) => Number(stack.dataset[key]));
    const column = slider.value % columns;
    const row = Math.floor(slider.value / columns);
    const side = 1 / view.zoom;
    const left = (column + view.x - side / 2) * width;
    const top = (row + view.y - side / 2) * height;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false;
    canvas.closest("figure").querySelector(".score").textContent = image.dataset.note;
    image.decode().then(() => {
      if (image !== pictureOf(canvas.dataset.kind)) return; // another was chosen meanwhile
      context.drawImage(image, left, top, side * width, side * height, 0, 0, canvas.width, canvas.height);
      canvas.dataset.drawn = `${slider.value} ${view.zoom} ${view.x} ${view.y}`;
    });
  }

  /* Whether there was another slice to go to. */
  function scroll(by) {
    const before = slider.value;
    slider.value = Number(before) + by;
    draw();
    return slider.value !== before;
  }

  function zoom(factor, x = view.x, y = view.y) {
    view.zoom = Math.min(Math.max(view.zoom * factor, 1), 8);
    [view.x, view.y] = [x, y];
    draw();
  }

  function move(x, y) {
    view.x += x / view.zoom;
    view.y += y / view.zoom;
    draw();
  }

  /* Where on the image (0 to 1) a pointer is. */
  function place(event) {
    const box = event.target.getBoundingClientRect();
    const at = (value, start, size, centre) => centre + ((value - start) / size - 0.5) / view.zoom;
    return [at(event.clientX, box.left, box.width, view.x), at(event.clientY, box.top, box.height, view.y)];
  }

  find(".stack").addEventListener("change", choose);
  find(".method").addEventListener("change", draw);
  slider.addEventListener("input", draw);
  find(".in").addEventListener("click", () => zoom(2));
  find(".out").addEventListener("click", () => zoom(0.5));
  find(".whole").addEventListener("click", () => zoom(0));
  viewer.addEventListener("keydown", (event) => {
    if (event.target.matches("select, input") || event.ctrlKey || event.metaKey || event.altKey) return;
    const arrows = { ArrowUp: [0, -0.1], ArrowDown: [0, 0.1], ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0] };
    const zooms = { "+": 2, "=": 2, "-": 0.5, 0: 0 };
    if (event.key in arrows) {
      const [x, y] = arrows[event.key];
      if (event.shiftKey) move(x, y);
      else scroll(x + y > 0 ? 1 : -1);
    } else if (event.key in zooms) zoom(zooms[event.key]);
    else return;
    event.preventDefault();
  });
  find(".views").addEventListener("wheel", (event) => {
    if (!event.ctrlKey && event.deltaY && scroll(Math.sign(event.deltaY))) event.preventDefault();
  }, { passive: false });

  let dragged = null; // since the pointer went down
  for (const canvas of canvases) {
    canvas.addEventListener("pointerdown", (event) => {
      dragged = { x: event.clientX, y: event.clientY, far: false };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!dragged) return;
      const [x, y] = [dragged.x - event.clientX, dragged.y - event.clientY];
      if (!dragged.far && Math.hypot(x, y) < 4) return;
      dragged = { x: event.clientX, y: event.clientY, far: true };
      move(x / canvas.clientWidth, y / canvas.clientHeight);
    });
    canvas.addEventListener("pointerup", (event) => {
      if (dragged && !dragged.far) zoom(view.zoom < 8 ? 2 : 0, ...place(event));
      dragged = null;
    });
    canvas.addEventListener("pointercancel", () => {
      dragged = null;
    });
  }
  choose();
}

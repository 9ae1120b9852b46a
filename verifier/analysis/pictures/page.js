"use strict";

// Drawing area in units of the SVG: its size, and the room around the axes.
const WIDTH = 560, HEIGHT = 410, ROOM = { left: 66, right: 14, top: 10, bottom: 50 };
const hiddenRoles = new Set();
const cards = [];

function element(name, attributes, parent, text) {
  const space = ["svg", "g", "path", "circle", "rect", "line", "text", "clipPath", "defs"].includes(name);
  const made = space ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  if (parent) parent.appendChild(made);
  return made;
}

// About six round numbers from low to high.
function ticks(low, high) {
  const rough = (high - low) / 6, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high; n++) found.push(n * step);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function number(value) {
  return Number(value.toPrecision(4)).toString().replace("-", "\u2212");
}

function scales(picture) {
  const left = ROOM.left + (picture.rows.length ? 50 : 0);
  const [[x0, x1], [y0, y1]] = picture.window;
  return {
    left,
    x: (v) => left + (v - x0) / (x1 - x0) * (WIDTH - left - ROOM.right),
    y: (v) => HEIGHT - ROOM.bottom - (v - y0) / (y1 - y0) * (HEIGHT - ROOM.bottom - ROOM.top),
  };
}

function drawAxes(svg, picture, to) {
  const bottom = HEIGHT - ROOM.bottom, right = WIDTH - ROOM.right;
  const across = ticks(...picture.window[0]), up = ticks(...picture.window[1]);
  for (const v of across.found) {
    element("line", { x1: to.x(v), x2: to.x(v), y1: ROOM.top, y2: bottom, stroke: "#e6e8eb" }, svg);
    element("text", { x: to.x(v), y: bottom + 19, "text-anchor": "middle" }, svg, v.toFixed(across.digits).replace("-", "\u2212"));
  }
  if (picture.rows.length) {
    picture.rows.forEach((name, row) =>
      element("text", { x: to.left - 8, y: to.y(-row) + 4, "text-anchor": "end", class: "label" }, svg, name));
  } else {
    for (const v of up.found) {
      element("line", { x1: to.left, x2: right, y1: to.y(v), y2: to.y(v), stroke: "#e6e8eb" }, svg);
      element("text", { x: to.left - 7, y: to.y(v) + 4, "text-anchor": "end" }, svg, v.toFixed(up.digits).replace("-", "\u2212"));
    }
    const middle = (ROOM.top + bottom) / 2;
    element("text", { x: 14, y: middle, transform: `rotate(-90 14 ${middle})`, "text-anchor": "middle", class: "label" }, svg, picture.y_label);
  }
  element("path", { d: `M${to.left} ${ROOM.top}V${bottom}H${right}`, fill: "none", stroke: "#c3c8ce" }, svg);
  element("text", { x: (to.left + right) / 2, y: HEIGHT - 8, "text-anchor": "middle", class: "label" }, svg, picture.x_label);
}

function drawMark(group, mark, to) {
  const colour = DATA.colours[mark.role], place = mark.points.map(([x, y]) => [to.x(x), to.y(y)]);
  if (mark.kind === "cloud") {
    for (const [x, y] of place) element("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 1.7, fill: colour, "fill-opacity": .45 }, group);
    return;
  }
  if (mark.kind === "bar") {
    const [[x, y], [X, Y]] = place, grey = mark.role === "network";
    element("rect", { x: Math.min(x, X), y: Math.min(y, Y), width: Math.max(1.5, Math.abs(X - x)), height: Math.abs(Y - y),
      fill: colour, "fill-opacity": grey ? .3 : .85, stroke: colour }, group);
    element("text", { x: Math.max(x, X) + 8, y: (y + Y) / 2 + 4, class: "note" }, group, mark.note);
    return;
  }
  const line = "M" + place.map(([x, y]) => `${x.toFixed(2)} ${y.toFixed(2)}`).join("L");
  const area = mark.kind === "area", network = mark.role === "network";
  element("path", {
    d: area ? line + "Z" : line,
    fill: area ? colour : "none", "fill-opacity": mark.faint ? .11 : network ? .28 : .12,
    stroke: colour, "stroke-opacity": mark.faint ? .25 : area && network ? .6 : 1, "stroke-width": mark.width * 1.1,
    "stroke-dasharray": mark.dashed ? "8 5" : "none", "stroke-linejoin": "round",
  }, group);
}

// The mark that is nearest to the pointer: corners count first, then whatever lies beneath.
function nearest(card, x, y) {
  let best = null, least = 12;
  for (const mark of card.visible()) {
    for (const point of mark.points) {
      const distance = Math.hypot(card.to.x(point[0]) - x, card.to.y(point[1]) - y);
      if (distance < least) [best, least] = [{ mark, point }, distance];
    }
    if (mark.kind !== "bar") continue;
    const [a, b] = mark.points, row = Math.abs(card.to.y((a[1] + b[1]) / 2) - y);
    if (row < 20 && !best) best = { mark, point: null };
  }
  return best;
}

function showTip(card, event) {
  const tip = document.getElementById("tip"), box = card.svg.getBoundingClientRect();
  const x = (event.clientX - box.left) * WIDTH / box.width, y = (event.clientY - box.top) * HEIGHT / box.height;
  const found = nearest(card, x, y);
  tip.style.visibility = found ? "visible" : "hidden";
  if (!found) return;
  const { mark, point } = found;
  tip.textContent = mark.kind === "bar" ? `${mark.label}: ${mark.note}`
    : point ? `${mark.label}\n(${number(point[0])}, ${number(point[1])})` : mark.label;
  tip.style.left = `${Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${event.clientY + 14}px`;
}

function toggle(parent, text, colour, hidden, key, redraw) {
  const button = element("button", { type: "button", "aria-pressed": String(!hidden.has(key)) }, parent);
  element("i", { style: `background:${colour}` }, button);
  button.append(text);
  button.addEventListener("click", () => {
    if (!hidden.delete(key)) hidden.add(key);
    button.setAttribute("aria-pressed", String(!hidden.has(key)));
    redraw();
  });
}

function makeCard(film) {
  const section = element("section", {}, document.getElementById("films"));
  const title = element("h2", {}, section), caption = element("p", {}, section);
  const hidden = new Set(), card = { frame: film.start };
  const picture = () => film.frames[card.frame];
  card.visible = () => picture().marks.filter((mark) => !hidden.has(mark.label) && !hiddenRoles.has(mark.role));
  if (film.frames.length > 1) {
    const control = element("label", { class: "control" }, section, film.control);
    const slider = element("input", { type: "range", min: 0, max: film.frames.length - 1, value: film.start }, control);
    const output = element("output", {}, control, film.names[film.start]);
    slider.addEventListener("input", () => {
      card.frame = Number(slider.value);
      output.textContent = film.names[card.frame];
      card.draw();
    });
  }
  card.svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" }, section);
  const legend = element("div", {}, section);
  card.draw = () => {
    const shown = picture();
    title.textContent = shown.title;
    caption.textContent = shown.caption;
    card.svg.setAttribute("aria-label", shown.title);
    card.svg.replaceChildren();
    card.to = scales(shown);
    drawAxes(card.svg, shown, card.to);
    const id = `view${cards.indexOf(card)}`, clip = element("clipPath", { id }, element("defs", {}, card.svg));
    element("rect", { x: card.to.left, y: ROOM.top, width: WIDTH - ROOM.right - card.to.left, height: HEIGHT - ROOM.bottom - ROOM.top }, clip);
    const group = element("g", { "clip-path": `url(#${id})` }, card.svg);
    for (const mark of card.visible()) drawMark(group, mark, card.to);
  };
  cards.push(card);
  card.draw();
  const labels = new Map(film.frames.flatMap((frame) => frame.marks).map((mark) => [mark.label, mark.role]));
  for (const [label, role] of labels) toggle(legend, label, DATA.colours[role], hidden, label, card.draw);
  card.svg.addEventListener("mousemove", (event) => showTip(card, event));
  card.svg.addEventListener("mouseleave", () => { document.getElementById("tip").style.visibility = "hidden"; });
}

for (const [role, name] of Object.entries(DATA.roles)) {
  toggle(document.getElementById("roles"), name, DATA.colours[role], hiddenRoles, role, () => cards.forEach((card) => card.draw()));
}
DATA.films.forEach(makeCard);

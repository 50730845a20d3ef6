// The preview page: asks the training what is new, shows it, and sends what the keys and buttons stand for.
"use strict";

const ZOOMS = [25, 50, 75, 100, 150, 200, 300, 400, 500];
const DIGITS = { 2: "s", 0: "b", 3: "p", 1: "l", 4: "n", 5: "f", 6: "h", 7: "o", "?": "h" }; // keyboards without Latin letters
const COMMANDS = { s: "save", b: "backup", p: "preview" };
const STATUS = { starting: "starting", training: "training", target: "target reached", changing: "changing options" };
const GRAPH_MS = 5000;
const AGAIN_MS = 3000;

const find = (id) => document.getElementById(id);
let state = { serial: -1, run: "", pages: [], tiles: [], ranges: [0], words: [], drawn: 0, status: "starting" };
let page = "";
let range = 0;
let zoom = "fit";
let named = false;
let shown = ""; // what the picture shows now
let graphed = { at: 0, what: "" };
let said = 0;

function kept(name, value) {
  try {
    if (value === undefined) return localStorage.getItem(name);
    localStorage.setItem(name, value);
  } catch { /* a browser that keeps nothing */ }
  return null;
}

// Asking

async function follow() {
  for (;;) {
    if (document.hidden) await new Promise((done) => document.addEventListener("visibilitychange", done, { once: true }));
    let pause = 200;
    try {
      const answer = await fetch(state.serial < 0 ? "state" : `state?after=${state.serial}`);
      if (answer.status === 401) return location.reload();
      if (!answer.ok) throw new Error(answer.statusText);
      take(await answer.json());
      if (state.status === "ended") pause = AGAIN_MS;
    } catch {
      away();
      pause = AGAIN_MS;
    }
    await new Promise((done) => setTimeout(done, pause));
  }
}

function take(news) {
  if (news.run !== state.run) { said = 0; shown = ""; graphed = { at: 0, what: "" }; find("words").replaceChildren(); }
  state = news;
  if (!state.pages.includes(page)) page = state.pages[0] || "";
  const ended = state.status === "ended";
  status(state.saving ? "saving" : state.status, state.saving ? "saving" : ended ? "training ended" : STATUS[state.status]);
  find("name").textContent = state.name || "facesmith";
  document.title = `${state.name || "facesmith"} ${state.iteration}`;
  const target = state.target ? ` of ${state.target.toLocaleString("en")}` : "";
  find("iteration").textContent = `Iteration ${state.iteration.toLocaleString("en")}${target}`;
  find("facts").replaceChildren(...[...state.losses, ...state.facts].map((text) => made("span", { textContent: text })));
  for (const button of document.querySelectorAll("nav [data-key]")) {
    if (COMMANDS[button.dataset.key] || button.dataset.key === "o" || button.dataset.key === "Enter") button.disabled = ended;
  }
  for (const word of state.words.filter((word) => word.number > said)) tell(word);
  if (ended && !find("words").querySelector(".ended")) tell({ text: state.ended, level: "ended" });
  show();
}

function status(kind, text) {
  find("status").className = kind;
  find("status").textContent = text;
}

function away() {
  state.serial = -1;
  if (state.status !== "ended") status("away", state.run ? "training ended, or out of reach" : "out of reach");
}

function tell(word) {
  said = Math.max(said, word.number || 0);
  const line = made("li", { className: word.level });
  const when = word.time ? new Date(word.time * 1000) : new Date();
  line.append(made("time", { textContent: when.toLocaleTimeString(), dateTime: when.toISOString() }));
  const [first, ...more] = word.text.split("\n");
  if (more.length > 3) {
    const box = made("details", {});
    box.append(made("summary", { textContent: first.replaceAll("=", "").trim() }), made("pre", { textContent: word.text }));
    line.append(box);
  } else line.append(word.text);
  find("words").prepend(line);
  while (find("words").children.length > 50) find("words").lastChild.remove();
}

function made(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}

// Showing

function show() {
  const index = state.pages.indexOf(page);
  find("page").textContent = index < 0 ? "Page" : `${page} [${index + 1}/${state.pages.length}]`;
  find("range").textContent = state.ranges[range] ? `last ${state.ranges[range].toLocaleString("en")}` : "all";
  find("drawn").textContent = index < 0 ? "" : `Drawn at iteration ${state.drawn_at.toLocaleString("en")}. `;
  find("none").hidden = index >= 0;
  find("sheet").hidden = index < 0;
  names(state.tiles[index] || { tiles: [1, 1], names: [] });
  const form = find("small").checked ? "jpg" : "png";
  const wanted = `${state.run} ${state.drawn} ${index} ${form}`;
  if (index >= 0 && wanted !== shown && state.status !== "away") {
    shown = wanted;
    find("picture").src = `picture?page=${index}&form=${form}&drawn=${state.drawn}&run=${state.run}`;
  }
  graph();
}

// Names of the files on their tiles, where the training tells them.
function names({ tiles: [rows, columns], names: texts }) {
  find("named").hidden = !texts.some((row) => row.some((text) => text));
  find("names").replaceChildren();
  if (!named) return;
  find("names").style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
  for (let y = 0; y < rows; y++) {
    for (let x = 0; x < columns; x++) find("names").append(made("span", { textContent: (texts[y] || [])[x] || "" }));
  }
}

function graph() {
  const width = find("losses").clientWidth;
  const view = `${range} ${width} ${state.run}`;
  const what = `${view} ${state.iteration}`;
  const soon = graphed.what.startsWith(`${view} `) && Date.now() - graphed.at < GRAPH_MS;
  if (what === graphed.what || (soon && state.status === "training")) return;
  graphed = { at: Date.now(), what };
  find("graph").src = `graph?range=${state.ranges[range]}&width=${width}&iteration=${state.iteration}&run=${state.run}`;
}

function size() {
  const picture = find("picture");
  const scale = zoom === "fit" ? fitting(picture) : zoom / 100;
  picture.classList.toggle("sharp", scale >= 1.5);
  picture.style.width = picture.naturalWidth ? `${Math.round(picture.naturalWidth * scale)}px` : "";
  find("zoom").value = zoom;
  kept("zoom", zoom);
}

// As large as there is room for; pixels of small pictures become squares that are all alike.
function fitting(picture) {
  const wide = find("frame").clientWidth / (picture.naturalWidth || 1);
  const scale = Math.min(wide, Math.max((0.8 * innerHeight) / (picture.naturalHeight || 1), 1));
  return scale > 1 ? Math.floor(scale) : scale;
}

function enlarge(step) {
  const now = zoom === "fit" ? 100 * fitting(find("picture")) : zoom;
  const next = step > 0 ? ZOOMS.find((one) => one > now + 1) : ZOOMS.findLast((one) => one < now - 1);
  zoom = next || (step > 0 ? ZOOMS[ZOOMS.length - 1] : ZOOMS[0]);
  size();
}

// Commands

async function send(command) {
  try {
    const headers = { "Content-Type": "application/json" };
    const answer = await fetch("command", { method: "POST", headers, body: JSON.stringify(command) });
    if (!answer.ok) tell({ level: "error", text: (await answer.text()).trim() });
  } catch {
    tell({ level: "error", text: "Not sent: the training is out of reach." });
  }
}

function press(key) {
  const ended = state.status === "ended";
  if (COMMANDS[key]) ended || send({ name: COMMANDS[key] });
  else if (key === " ") { page = state.pages[(state.pages.indexOf(page) + 1) % state.pages.length] || ""; show(); }
  else if (key === "l") { range = (range + 1) % state.ranges.length; show(); }
  else if (key === "+" || key === "=") enlarge(1);
  else if (key === "-") enlarge(-1);
  else if (key === "f") { zoom = "fit"; size(); }
  else if (key === "n") { named = !named; show(); }
  else if (key === "h") find("help").showModal();
  else if (key === "o") ended || options();
  else if (key === "Enter") ended || find("stop").showModal();
  else return false;
  return true;
}

async function options() {
  const answer = await fetch("options").catch(() => null);
  if (!answer || !answer.ok || find("options").open) return;
  const rows = await answer.json();
  find("rows").replaceChildren(...rows.filter((row) => !row.more).map(field));
  find("more").replaceChildren(...rows.filter((row) => row.more).map(field));
  find("options").showModal();
}

function field(row) {
  const box = made("fieldset", {});
  const label = made("label", { textContent: row.label });
  let input;
  if (row.choices.length) {
    input = made("select", { name: row.key });
    input.append(...row.choices.map((choice) => made("option", { value: choice, textContent: choice })));
  } else {
    input = made("input", { name: row.key, type: row.kind === "text" ? "text" : "number", autocomplete: "off" });
    if (row.kind !== "text") Object.assign(input, { step: row.kind === "int" ? 1 : "any", required: true });
    if (row.low !== null) input.min = row.low;
    if (row.high !== null) input.max = row.high;
  }
  input.value = input.dataset.before = row.value;
  label.append(input);
  box.append(label, made("p", { textContent: row.help }));
  return box;
}

function change() {
  const fields = [...find("options").querySelectorAll("[name]")];
  const given = {};
  for (const one of fields) if (one.value !== one.dataset.before) given[one.name] = one.value;
  if (Object.keys(given).length) send({ given });
}

// What the user does

document.addEventListener("keydown", (event) => {
  const busy = document.querySelector("dialog[open]") || event.ctrlKey || event.metaKey || event.altKey;
  if (busy || event.target.closest("input, select, textarea, summary")) return;
  if (event.target.closest("button") && (event.key === " " || event.key === "Enter")) return;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (press(DIGITS[key] || key)) event.preventDefault();
});
for (const button of document.querySelectorAll("nav [data-key]")) {
  button.addEventListener("click", (event) => {
    press(button.dataset.key);
    if (event.detail) button.blur(); // a mouse: the next space is the next page again
  });
}
find("stop").addEventListener("close", () => { if (find("stop").returnValue === "stop") send({ name: "stop" }); });
find("options").addEventListener("close", () => { if (find("options").returnValue === "apply") change(); });
find("cancel").addEventListener("click", () => find("options").close(""));
for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("cancel", () => { dialog.returnValue = ""; }); // Esc
}
find("zoom").append(made("option", { value: "fit", textContent: "fit" }));
find("zoom").append(...ZOOMS.map((one) => made("option", { value: one, textContent: `${one} %` })));
find("zoom").addEventListener("change", () => { zoom = find("zoom").value === "fit" ? "fit" : Number(find("zoom").value); size(); });
find("small").checked = kept("small") === "true";
find("small").addEventListener("change", () => { kept("small", find("small").checked); show(); });
find("picture").addEventListener("load", size);
find("picture").addEventListener("error", () => { shown = ""; });
find("graph").addEventListener("load", () => { find("graph").hidden = false; });
addEventListener("resize", () => { graph(); size(); });
zoom = ZOOMS.includes(Number(kept("zoom"))) ? Number(kept("zoom")) : "fit";
size();
follow();

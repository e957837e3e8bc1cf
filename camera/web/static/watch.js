"use strict";
// Text from files and names of sources goes in as text, never as markup.

const SPAN_S = 30; // of the timeline
const POLL_MS = 1000; // between pictures of a camera that is not selected
// Of classes, in the model's order; told apart in light and dark.
const CLASSES = ["#e69f00", "#3b8fd1", "#8a919c", "#d5542a", "#c765a0", "#12a17a", "#7d68d1", "#b8a11a", "#4aa3a2", "#a0522d",
  "#6b8e23", "#c71585"];
// Of faces, the same as on the picture (camera/answers/drawing.py).
const FACES = ["rgb(86,180,233)", "rgb(230,159,0)", "rgb(0,158,115)", "rgb(240,228,66)", "rgb(204,121,167)", "rgb(213,94,0)"];

const byId = (name) => document.getElementById(name);
const clone = (name) => byId(name).content.firstElementChild.cloneNode(true);
const make = (tag, name) => { const made = document.createElement(tag); made.className = name; return made; };
const put = (element, text) => { if (element.textContent !== text) element.textContent = text; };
const figure = (value, digits, unit) => (value === null || value === undefined ? "–" : value.toFixed(digits) + unit);

const cameras = []; // what is on the page: {root, picture, faces: Map, shown}
let labels = [];
let selected = 0;
let connected = false;
let lastAt = 0; // the server's clock

// ------------------------------------------------------------------------------------------------------------ pictures
let generation = 0; // a new address makes the browser connect anew
function aim() {
  generation += 1;
  cameras.forEach((camera, number) => {
    const live = number === selected && !document.hidden;
    camera.root.classList.toggle("still", number !== selected);
    if (!live && !camera.hasPicture) return; // there is none to ask for yet
    const path = live ? "stream" : "snapshot.jpg";
    camera.picture.src = `${path}?camera=${number}&n=${generation}`;
  });
}

function poll() {
  if (connected && !document.hidden) {
    cameras.forEach((camera, number) => {
      if (number !== selected && camera.hasPicture && camera.picture.complete) {
        generation += 1;
        camera.picture.src = `snapshot.jpg?camera=${number}&n=${generation}`;
      }
    });
  }
}

// ------------------------------------------------------------------------------------------------------------- cameras
function addCamera(number) {
  const root = clone("camera");
  const picture = root.querySelector(".picture");
  picture.addEventListener("error", () => { if (connected && number === selected) setTimeout(aim, 1000); });
  picture.addEventListener("click", () => { if (selected !== number) { selected = number; aim(); } });
  byId("cameras").append(root);
  cameras.push({ root, picture, stats: root.querySelector(".stats"), list: root.querySelector(".faces"), faces: new Map(), hasPicture: false });
}

function stat(camera, name, value, loud) {
  let cell = camera.stats.querySelector(`[data-name="${name}"]`);
  if (!cell) {
    cell = make("div", "");
    cell.dataset.name = name;
    cell.append(document.createElement("dt"), document.createElement("dd"));
    put(cell.firstChild, name);
    camera.stats.append(cell);
  }
  put(cell.lastChild, value);
  cell.classList.toggle("loud", Boolean(loud));
}

const counted = (counts) => Object.entries(counts).map(([what, count]) => `${what} ${count}`).join(", ") || "0";

function showCamera(camera, state) {
  put(camera.root.querySelector("h2"), state.name);
  camera.picture.alt = `picture of ${state.name}`;
  camera.hasPicture = state.size !== null;
  const pill = camera.root.querySelector(".state");
  pill.dataset.state = state.state;
  put(pill, state.state);
  put(camera.root.querySelector(".reason"), state.reason);
  const dropped = Object.values(state.dropped).reduce((sum, count) => sum + count, 0);
  stat(camera, "frames a second", `${figure(state.captured_hz, 1, "")} in, ${figure(state.worked_hz, 1, "")} used`);
  stat(camera, "answers a second", figure(state.answers_hz, 1, ""));
  stat(camera, "age of answers", `${figure(state.age_p50_ms, 0, " ms")}, p99 ${figure(state.age_p99_ms, 0, " ms")}`);
  stat(camera, "dropped frames", dropped ? counted(state.dropped) : "0");
  stat(camera, "hop", state.hop > state.wanted_hop ? `${state.hop} (asked: ${state.wanted_hop})` : `${state.hop}`,
    state.hop > state.wanted_hop);
  stat(camera, "faces left out", counted(state.skipped) + (state.unserved ? `, no place ${state.unserved}` : ""), state.unserved);
  stat(camera, "finding faces", figure(state.find_ms, 1, " ms"));
  stat(camera, "picture", state.size ? `${state.size[0]} × ${state.size[1]}` : "–");
  stat(camera, "connections", `${state.reconnects + 1}`);
  const seen = new Set(state.faces.map((face) => face.id));
  for (const [id, face] of camera.faces) {
    if (!seen.has(id)) { face.root.remove(); camera.faces.delete(id); }
  }
  state.faces.forEach((face) => {
    if (!camera.faces.has(face.id)) camera.faces.set(face.id, addFace(camera, face.id));
    showFace(camera.faces.get(face.id), face);
  });
}

// --------------------------------------------------------------------------------------------------------------- faces
function addFace(camera, id) {
  const root = clone("face");
  root.dataset.face = id;
  root.querySelector(".swatch").style.background = FACES[id % FACES.length];
  put(root.querySelector(".id"), `#${id}`);
  const bars = labels.map((name, place) => {
    const row = document.createElement("li");
    const [text, track, value] = [make("span", "name"), make("span", "track"), make("span", "figure")];
    const fill = make("div", "fill");
    put(text, name);
    text.title = name;
    fill.style.background = CLASSES[place % CLASSES.length];
    track.append(fill);
    row.append(text, track, value);
    root.querySelector(".bars").append(row);
    return { row, fill, value };
  });
  camera.list.append(root);
  return { root, bars, crop: root.querySelector(".crop"), canvas: root.querySelector(".timeline"), past: [], last: "" };
}

function showFace(face, state) {
  if (state.crop && face.crop.getAttribute("src") !== state.crop) face.crop.src = state.crop;
  const answer = state.answer;
  face.root.classList.toggle("uncertain", !answer || answer.uncertain);
  if (!answer) {
    put(face.root.querySelector(".label"), "warming up");
    put(face.root.querySelector(".share"), `${Math.round(100 * state.warm)} %`);
    face.past = [];
    return;
  }
  const best = answer.probabilities.indexOf(Math.max(...answer.probabilities));
  put(face.root.querySelector(".label"), answer.label);
  put(face.root.querySelector(".share"), `${Math.round(100 * answer.confidence)} %`);
  put(face.root.querySelector(".age"), `age ${answer.age_ms.toFixed(0)} ms`);
  face.bars.forEach((bar, place) => {
    const share = answer.probabilities[place];
    bar.row.classList.toggle("best", place === best);
    bar.row.dataset.share = share;
    bar.fill.style.width = `${100 * share}%`;
    put(bar.value, `${Math.round(100 * share)} %`);
  });
  const key = `${answer.epoch}/${answer.sequence}`;
  if (key !== face.last) {
    face.last = key;
    face.past.push({ at: answer.at, shares: answer.probabilities, epoch: answer.epoch });
  }
}

function drawTimeline(face, now) {
  const canvas = face.canvas;
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
  while (face.past.length && face.past[0].at < now - SPAN_S - 2) face.past.shift();
  canvas.dataset.points = face.past.length;
  const brush = canvas.getContext("2d");
  brush.clearRect(0, 0, width, height);
  const x = (at) => width * (1 - (now - at) / SPAN_S);
  for (let place = 0; place < face.past.length; place += 1) {
    const point = face.past[place];
    const next = face.past[place + 1];
    // An answer holds until the next one; across a break, or a long pause, nothing is drawn.
    const until = next && next.epoch === point.epoch ? Math.min(next.at, point.at + 2) : Math.min(now, point.at + 0.5);
    const [left, right] = [x(point.at), Math.min(width, x(until))];
    if (right <= 0 || right <= left) continue;
    let top = 0;
    point.shares.forEach((share, number) => {
      brush.fillStyle = CLASSES[number % CLASSES.length];
      brush.fillRect(left, top, right - left + 1, share * height);
      top += share * height;
    });
  }
}

// -------------------------------------------------------------------------------------------------------------- events
function show(state) {
  labels = state.watch.labels;
  lastAt = state.at;
  const { bundle, backend, precision, face, alignment, version } = state.watch;
  put(byId("facts"), [bundle, `${precision} on ${backend}`, `faces: ${face}`, alignment, `logoformer ${version}`].filter(Boolean).join(" · "));
  if (cameras.length === 0) { state.cameras.forEach((_, number) => addCamera(number)); aim(); }
  state.cameras.forEach((camera, number) => { if (cameras[number]) showCamera(cameras[number], camera); });
  cameras.forEach((camera) => camera.faces.forEach((face) => drawTimeline(face, lastAt)));
}

function link(state, text) {
  byId("link").dataset.state = state;
  put(byId("link"), text);
  document.body.classList.toggle("offline", state !== "live");
}

function listen() {
  const source = new EventSource("events");
  source.addEventListener("open", () => { connected = true; link("live", "connected"); aim(); });
  source.addEventListener("message", (event) => show(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    connected = false;
    link("gone", "no connection: trying again");
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 2000); // refused: the browser does not try again
  });
}

document.addEventListener("visibilitychange", aim);
setInterval(poll, POLL_MS);
listen();

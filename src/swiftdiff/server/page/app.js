// Owns the page: what it knows of the server, the form, and what is shown of a request.

import { Api, ApiError } from "./api.js";
import { Sketch } from "./sketch.js";
import { milliseconds, showTimelines } from "./timeline.js";

const PARTIAL_IMAGES = 8;
const SWITCH_WORDS = {
  latent_parallelism: ["The two halves of guidance at the same time", ""],
  controlnet_offload: ["ControlNets beside the UNet", ""],
  reuse_invariants: ["Compute once what does not change over the steps", ""],
  bal_k: ["Steps that may begin without a LoRA that still loads", "Above 0 the picture is approximate."],
};
const FIELDS = {
  prompt: "prompt", negative_prompt: "negative", size: "side", seed: "seed", num_inference_steps: "steps",
  guidance_scale: "guidance", controlnets: "controlnet",
};

const at = (id) => document.getElementById(id);
const api = new Api();
const sketch = new Sketch(at("canvas"), {
  tool: at("tool"), colour: at("colour"), breadth: at("breadth"), status: at("canvas-status"),
});
let server = { model: null, engines: [], switches: {} };
let underWay = null;
let upload = null;

// What the server offers -------------------------------------------------------------------------

async function learn() {
  try {
    const [models, adapters] = await Promise.all([api.get("v1/models"), api.get("v1/adapters")]);
    at("key-field").hidden = true;
    showServer(models);
    showLoras(adapters.loras);
    const none = at("controlnet").options[0];
    at("controlnet").replaceChildren(none, ...adapters.controlnets.map(({ id }) => new Option(id, id)));
    at("control").hidden = !adapters.controlnets.length;
    hideError();
  } catch (error) {
    if (error.status === 401) {
      at("key-field").hidden = false;
      at("model").textContent = "This server wants an API key.";
      if (api.key) showError(error);
      at("key").focus();
    } else {
      showError(error);
    }
  }
}

function showServer(models) {
  const about = models.swiftdiff;
  server = { model: models.data[0].id, system: about.system, engine: about.engine, engines: about.engines,
    switches: about.switches };
  at("model").textContent = `Model ${server.model}, served by ${about.system} (${about.exactness})`;
  at("worlds").hidden = !about.worlds;
  if (server.model === "shapes") {
    at("prompt-note").textContent =
      "This model knows circles, squares, triangles, stars, crosses and rings in eight colours.";
  }
  const { limits, defaults } = about;
  for (const [id, value, most] of [
    ["side", about.native_size, limits.side],
    ["steps", defaults.num_inference_steps, limits.steps],
    ["guidance", defaults.guidance_scale, null],
  ]) {
    at(id).value = value;
    if (most) at(id).max = most;
  }
  if (limits.prompt_chars) at("prompt").maxLength = limits.prompt_chars;
  const others = server.engines.filter((engine) => engine !== about.engine);
  at("compare-field").hidden = !others.includes("diffusers");
  showSwitches();
}

function showSwitches() {
  const names = Object.keys(server.switches);
  at("switches-note").textContent = names.length
    ? "For this request; the server's other optimizations stay as they are."
    : "This server's optimizations cannot be changed by a request.";
  at("switch-list").replaceChildren(...names.map((name) => switchField(name, server.switches[name])));
}

function switchField(name, value) {
  const [words, remark] = SWITCH_WORDS[name] ?? [name, ""];
  const isSwitch = typeof value === "boolean";
  const label = make("label", isSwitch ? "" : "count");
  const input = make("input");
  input.id = `switch-${name}`;
  if (isSwitch) {
    input.type = "checkbox";
    input.checked = value;
  } else {
    input.type = "number";
    input.min = 0;
    input.value = typeof value === "number" ? value : "";
    input.placeholder = String(value); // "auto": the server's table decides
  }
  label.append(input, text("span", "", words));
  if (remark) label.append(text("span", "note", remark));
  return label;
}

function showLoras(loras) {
  at("loras").hidden = !loras.length;
  at("loras-note").textContent = loras.some((lora) => lora.thumbnail)
    ? "Each thumbnail is one prompt drawn by this server's model with that LoRA, in few steps."
    : "";
  at("loras").querySelector("ul").replaceChildren(...loras.map(loraCard));
  drawThumbnails(loras.filter((lora) => lora.thumbnail));
}

function loraCard({ id, thumbnail }) {
  const card = make("li", "card");
  const label = make("label");
  const box = make("input");
  box.type = "checkbox";
  box.value = id;
  box.dataset.lora = id;
  if (thumbnail) card.append(text("div", "blank", "not drawn yet"));
  label.append(box, text("span", "", id));
  const field = make("div", "field");
  field.hidden = true;
  const scale = make("input");
  scale.type = "number";
  scale.step = "any";
  scale.min = -100;
  scale.max = 100;
  scale.value = 1;
  scale.setAttribute("aria-label", `Scale of ${id}`);
  field.append(text("span", "", "Scale"), scale);
  box.addEventListener("change", () => (field.hidden = !box.checked));
  card.append(label, field);
  return card;
}

/** One after another, for the server draws them while nobody else waits. */
async function drawThumbnails(loras) {
  for (const { id, thumbnail } of loras) {
    const card = [...document.querySelectorAll("[data-lora]")].find((box) => box.value === id)?.closest("li");
    const blank = card?.querySelector(".blank");
    if (!blank) continue;
    try {
      const image = make("img");
      image.alt = "";
      image.src = await patiently(() => api.picture(thumbnail));
      blank.replaceWith(image);
    } catch {
      blank.textContent = "no thumbnail";
    }
  }
}

/** Asks again while the server is busy with requests, for some minutes. */
async function patiently(ask) {
  for (let left = 60; ; left -= 1) {
    try {
      return await ask();
    } catch (error) {
      if (![429, 503].includes(error.status) || !left) throw error;
      await new Promise((resolve) => setTimeout(resolve, 5000));
    }
  }
}

// The form ---------------------------------------------------------------------------------------

function requestBody() {
  const body = {
    model: server.model,
    prompt: at("prompt").value,
    size: `${at("side").value}x${at("side").value}`,
    seed: at("seed").value ? Number(at("seed").value) : Math.floor(Math.random() * 2 ** 31),
    num_inference_steps: Number(at("steps").value),
    guidance_scale: Number(at("guidance").value),
  };
  if (at("negative").value) body.negative_prompt = at("negative").value;
  const loras = [...document.querySelectorAll("[data-lora]:checked")];
  body.loras = loras.map((box) => ({
    id: box.value,
    scale: Number(box.closest("li").querySelector("[type=number]").value),
  }));
  if (at("controlnet").value) body.controlnets = [controlnetUse()];
  body.stream = true;
  body.partial_images = at("grow").checked ? PARTIAL_IMAGES : 0;
  return body;
}

function controlnetUse() {
  const isDrawn = document.querySelector("[name=source]:checked").value === "draw";
  if (isDrawn && sketch.isBlank) throw new FormError("canvas", "Draw a control image, or choose no ControlNet.");
  if (!isDrawn && !upload) throw new FormError("upload", "Choose a file for the control image.");
  return {
    id: at("controlnet").value,
    image: isDrawn ? sketch.toBase64() : upload,
    scale: Number(at("control-scale").value),
    start: Number(at("control-start").value),
    end: Number(at("control-end").value),
  };
}

class FormError extends Error {
  constructor(field, message) {
    super(message);
    this.field = field;
  }
}

function chosenSwitches() {
  const chosen = {};
  for (const [name, value] of Object.entries(server.switches)) {
    const input = at(`switch-${name}`);
    if (typeof value === "boolean") chosen[name] = input.checked;
    else if (input.value !== "") chosen[name] = Number(input.value);
  }
  return chosen;
}

async function readUpload() {
  const [file] = at("upload").files;
  const shown = at("upload-shown");
  upload = null;
  shown.hidden = !file;
  if (!file) return;
  const address = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
  upload = address.split(",")[1];
  shown.src = address;
  shown.alt = `Control image ${file.name}`;
}

function chooseControlnet() {
  const id = at("controlnet").value;
  at("control-panel").hidden = !id;
  if (id) sketch.begin(id, Number(at("side").value) || 128);
}

function chooseSource() {
  const isDrawn = document.querySelector("[name=source]:checked").value === "draw";
  at("draw-panel").hidden = !isDrawn;
  at("upload-panel").hidden = isDrawn;
}

// A request --------------------------------------------------------------------------------------

async function submit(event) {
  event.preventDefault();
  if (underWay) return;
  hideError();
  underWay = new AbortController();
  at("submit").disabled = true;
  at("stop").disabled = false;
  try {
    await serve(requestBody());
  } catch (error) {
    if (error.name === "AbortError") say("Stopped.");
    else showError(error);
  } finally {
    underWay = null;
    at("progress").hidden = true;
    at("submit").disabled = false;
    at("stop").disabled = true;
  }
}

/** Serves a request by the server's system and, if asked, by stock diffusers; shows both. */
async function serve(body) {
  const compares = !at("compare-field").hidden && at("compare").checked;
  const switches = chosenSwitches();
  const own = Object.keys(switches).length ? { ...body, swiftdiff: { switches } } : body;
  const ways = [{ label: server.system, body: own }];
  if (compares) ways.push({ label: "stock diffusers", body: { ...body, swiftdiff: { engine: "diffusers" } } });
  at("verdict").replaceChildren();
  at("timelines").replaceChildren();
  at("pictures").replaceChildren();
  showCommand(own);
  if (matchMedia("(max-width: 52rem)").matches) at("result").scrollIntoView({ block: "start" });
  const served = [];
  for (const way of ways) {
    const { image, caption } = addFigure(way.label, body.prompt);
    const done = await follow(way.label, way.body, image);
    caption.textContent = `${way.label}, seed ${done.swiftdiff.seed}`;
    served.push({ label: way.label, how: done.swiftdiff, image });
    showTimelines(at("timelines"), served);
  }
  say(`Done: ${served.map(({ label, how }) => `${label} took ${milliseconds(how.latency_s)} ms`).join(", ")}.`);
  if (compares) await showVerdict(...served);
}

async function follow(label, body, image) {
  const progress = at("progress");
  progress.hidden = false;
  progress.value = 0;
  let announced = 0;
  say(`${label}: waiting for the first step…`);
  const done = await api.generate(body, underWay.signal, (event) => {
    showPicture(image, event.b64_json);
    const { step, num_steps: steps } = event.swiftdiff ?? {};
    const share = steps ? step / steps : (event.partial_image_index + 1) / (PARTIAL_IMAGES + 1);
    progress.value = share;
    if (share - announced < 0.24) return; // a screen reader has better things to say than each step
    announced = share;
    say(steps ? `${label}: step ${step} of ${steps}` : `${label}: ${Math.round(100 * share)} %`);
  });
  showPicture(image, done.b64_json);
  await image.decode();
  progress.value = 1;
  return done;
}

function showPicture(image, base64) {
  image.src = `data:image/png;base64,${base64}`;
  image.hidden = false;
}

function addFigure(label, prompt) {
  const figure = make("figure");
  const image = make("img");
  image.alt = prompt;
  image.hidden = true; // until there is something to see: browsers draw a broken picture
  const caption = text("figcaption", "", label);
  figure.append(image, caption);
  at("pictures").append(figure);
  return { image, caption };
}

async function showVerdict(ours, stock) {
  const [own, other] = [ours.how, stock.how].map((how) => how.latency_s - how.queue_wait_s);
  const ratio = other / own; // who was served before has nothing to do with either
  const apart = largestDifference(ours.image, stock.image);
  const looks = at("grow").checked ? " Showing unfinished pictures is part of both times." : "";
  const speed = ratio >= 1 ? `${ratio.toFixed(1)} times as fast as` : `${(1 / ratio).toFixed(1)} times as slow as`;
  at("verdict").replaceChildren(
    text("h3", "", `${ours.label} was ${speed} stock diffusers`),
    text("p", "", `No value of the two pictures is more than ${apart} of 255 apart.`),
    text("p", "note", `One request each, without the wait in the queue, with adapters as they happened to be in memory.${looks} For numbers to rely on: swiftdiff compare.`),
  );
}

function largestDifference(one, other) {
  const [a, b] = [one, other].map((image) => {
    const canvas = make("canvas");
    canvas.width = one.naturalWidth;
    canvas.height = one.naturalHeight;
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return context.getImageData(0, 0, canvas.width, canvas.height).data;
  });
  return a.reduce((most, value, index) => Math.max(most, Math.abs(value - b[index])), 0);
}

function showCommand(body) {
  const controlnets = body.controlnets?.map((use) => ({ ...use, image: "<base64 of the control image>" }));
  const { stream, partial_images, ...plain } = body;
  const shown = JSON.stringify({ ...plain, ...(controlnets && { controlnets }) }, null, 1).replaceAll("'", "'\\''");
  const key = api.key ? ` -H "Authorization: Bearer $KEY"` : "";
  const address = new URL("v1/images/generations", document.baseURI);
  at("command").textContent = `curl ${address} -H 'Content-Type: application/json'${key} -d '${shown}'`;
  at("as-request").hidden = false;
}

// What is said -----------------------------------------------------------------------------------

function say(words) {
  at("status").textContent = words;
}

function showError(error) {
  const isKnown = error instanceof ApiError || error instanceof FormError;
  if (!isKnown) console.error(error);
  say("");
  at("error").textContent = isKnown ? error.message : "Something went wrong in this page; the browser's console says what.";
  at("error").hidden = false;
  const field = error.field ?? FIELDS[error.param?.split(/[.[]/)[0]];
  if (!field) return;
  at(field).closest("details")?.setAttribute("open", "");
  at(field).setAttribute("aria-invalid", "true");
  at(field).setAttribute("aria-errormessage", "error");
  at(field).focus();
}

function hideError() {
  at("error").hidden = true;
  for (const field of document.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    field.removeAttribute("aria-errormessage");
  }
}

function make(name, look = "") {
  const made = document.createElement(name);
  if (look) made.className = look;
  return made;
}

function text(name, look, words) {
  const made = make(name, look);
  made.textContent = words;
  return made;
}

at("ask").addEventListener("submit", submit);
at("stop").addEventListener("click", () => underWay?.abort());
at("controlnet").addEventListener("change", chooseControlnet);
at("upload").addEventListener("change", () => readUpload().catch(showError));
for (const choice of document.querySelectorAll("[name=source]")) choice.addEventListener("change", chooseSource);
at("undo").addEventListener("click", () => sketch.undo());
at("clear").addEventListener("click", () => sketch.clear());
// A field in a closed part of the form cannot show the browser's own complaint.
at("ask").addEventListener("invalid", (event) => event.target.closest("details")?.setAttribute("open", ""), true);
at("use-key").addEventListener("click", () => {
  api.key = at("key").value.trim();
  learn();
});
learn();

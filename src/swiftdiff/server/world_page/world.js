// Owns the page of worlds: begins one, draws its pictures as they come, and steers it.

import { Api, ApiError } from "./api.js";
import { readParts } from "./frames.js";

const WORLDS = "../v1/worlds";
const RATE_OVER_MS = 5000;
const KEYS = { ArrowLeft: "push left", ArrowRight: "push right", ArrowUp: "push up", ArrowDown: "push down" };
const ARROWS = { "push left": "←", "push right": "→", "push up": "↑", "push down": "↓" };
const FIELDS = { prompt: "prompt", seed: "seed", text: "text" };

const at = (id) => document.getElementById(id);
const api = new Api();
let offer = { actions: [] };
let world = null; // {id, stop: AbortController, prompt, times: of the last frames, shown, block}

// What the server offers -------------------------------------------------------------------------

async function learn() {
  try {
    offer = await api.get(WORLDS);
    at("key-field").hidden = true;
    at("model").textContent = `Model ${offer.model}, ${offer.fps} frames a second, ${offer.frames_per_block} a block`;
    at("prompt").maxLength = at("text").maxLength = offer.prompt_chars;
    if (!at("prompt").value) at("prompt").value = offer.example;
    at("another").hidden = offer.prompts.length > 0;
    at("images").hidden = !offer.images;
    showPrompts(offer.prompts);
    showActions(offer.actions);
    hideError();
  } catch (error) {
    if (error.status !== 401) return showError(error);
    at("key-field").hidden = false;
    at("model").textContent = "This server wants an API key.";
    if (api.key) showError(error);
    at("key").focus();
  }
}

async function proposeAnother() {
  try {
    at("known").value = at("prompt").value = (await api.get(WORLDS)).example;
    say("Another beginning is proposed.");
  } catch (error) {
    showError(error);
  }
}

/** Where a model knows some prompts and no others, they are there to choose from. */
function showPrompts(prompts) {
  at("known-field").hidden = !prompts.length;
  at("known").replaceChildren(...prompts.map((prompt) => new Option(prompt)));
  at("known").value = at("prompt").value;
  at("texts").replaceChildren(...prompts.map((prompt) => new Option(prompt)));
  if (prompts.length) at("span").value = "";
}

function showActions(actions) {
  const directed = actions.filter((action) => action in ARROWS);
  at("pad").replaceChildren(...directed.map(actionButton));
  at("others").replaceChildren(...actions.filter((action) => !directed.includes(action)).map(actionButton));
  at("steer").hidden = !actions.length;
  at("screen-note").textContent = directed.length ? "With the picture in focus, arrow keys push." : "";
}

function actionButton(action) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = ARROWS[action] ?? action;
  if (action in ARROWS) {
    button.setAttribute("aria-label", action);
    button.className = action.split(" ")[1];
  }
  button.disabled = !world;
  button.addEventListener("click", () => steer(action, 1));
  return button;
}

// A world that runs ------------------------------------------------------------------------------

async function start(event) {
  event.preventDefault();
  hideError();
  await end();
  const prompt = at("prompt").value;
  const seed = at("seed").value;
  const mine = { stop: new AbortController(), prompt, times: [], shown: 0, block: -1, askedAt: performance.now() };
  world = mine;
  for (const figure of ["first", "shown", "missed"]) at(figure).textContent = "–";
  showRunning();
  say("Beginning…");
  try {
    const made = await post(WORLDS, { prompt, ...(seed !== "" && { seed: Number(seed) }) }, mine.stop.signal);
    mine.id = made.id;
    const response = await api.send(`../${made.frames}`, { signal: mine.stop.signal });
    say(`It runs. Seed ${made.seed}.`);
    await watch(mine, response.body);
    if (world === mine) throw new ApiError(0, "the stream ended; is the server still running?");
  } catch (error) {
    if (world === mine) {
      world = null;
      showError(error);
      if (mine.id) remove(mine);
    }
  } finally {
    showRunning();
  }
}

/** Draws a world's pictures until its stream ends; throws what the server says at its end. */
async function watch(mine, stream) {
  for await (const { headers, data } of unbroken(readParts(stream))) {
    const type = headers.get("content-type");
    if (type === "application/json") {
      const { error } = JSON.parse(new TextDecoder().decode(data));
      throw new ApiError(200, error.message, error.param);
    }
    const picture = await createImageBitmap(new Blob([data], { type }));
    if (world === mine) show(mine, picture, headers);
    picture.close();
  }
}

async function* unbroken(parts) {
  try {
    yield* parts;
  } catch (error) {
    throw error.name === "AbortError" ? error : new ApiError(0, "the stream broke off; is the server still running?");
  }
}

function show(mine, picture, headers) {
  const screen = at("screen");
  if (screen.width !== picture.width || screen.height !== picture.height) {
    screen.width = picture.width;
    screen.height = picture.height;
    screen.classList.toggle("smooth", picture.width > 256);
    screen.style.aspectRatio = `${picture.width} / ${picture.height}`;
  }
  screen.getContext("2d").drawImage(picture, 0, 0);
  const now = performance.now();
  if (!mine.shown) {
    mine.firstAt = now;
    // not before: with its first picture the screen takes its size, and the page its length
    if (matchMedia("(max-width: 52rem)").matches) at("live").scrollIntoView({ block: "start" });
    at("first").textContent = `${Math.round(now - mine.askedAt)} ms`;
  }
  mine.shown += 1;
  at("shown").textContent = mine.shown;
  mine.times.push(now);
  at("missed").textContent = headers.get("x-missed");
  const block = Number(headers.get("x-block"));
  if (block === mine.block) return;
  mine.block = block;
  at("caption").textContent = `Block ${block}: ${decodeURIComponent(headers.get("x-prompt"))}`;
}

function showFigures() {
  if (!world) return;
  const { times } = world;
  const now = performance.now();
  while (times[0] < now - RATE_OVER_MS) times.shift(); // here, so that a stream that stalls is seen to
  const seconds = Math.min(now - world.firstAt, RATE_OVER_MS) / 1000;
  at("rate").textContent = seconds > 0.5 ? (times.length / seconds).toFixed(1) : "–";
}

async function steer(text, blocks) {
  const mine = world;
  if (!mine?.id) return;
  hideError();
  try {
    const { from_block: block } = await post(`${WORLDS}/${mine.id}/steer`, { text, blocks }, mine.stop.signal);
    if (world === mine) say(`${text}: seen by block ${block}.`);
  } catch (error) {
    if (error.name !== "AbortError") showError(error);
  }
}

/** Ends the world that runs, if one does, and waits until its place is free. */
async function end() {
  const mine = world;
  world = null;
  if (!mine) return;
  mine.stop.abort();
  if (mine.id) await remove(mine);
}

async function remove({ id }) {
  try {
    await api.send(`${WORLDS}/${id}`, { method: "DELETE", keepalive: true });
  } catch {
    // It has ended, or ends soon: nobody watches it.
  }
}

async function post(path, body, signal) {
  const headers = { "Content-Type": "application/json" };
  const response = await api.send(path, { method: "POST", headers, body: JSON.stringify(body), signal });
  return response.json();
}

// What is said -----------------------------------------------------------------------------------

function showRunning() {
  at("stop").disabled = at("tell").disabled = !world;
  for (const button of at("steer").querySelectorAll("button")) button.disabled = !world;
  at("start").textContent = world ? "Start anew" : "Start the world";
}

function say(words) {
  at("status").textContent = words;
}

function showError(error) {
  const isKnown = error instanceof ApiError;
  if (!isKnown) console.error(error);
  say("");
  at("error").textContent = isKnown ? error.message : "Something went wrong in this page; the browser's console says what.";
  at("error").hidden = false;
  const field = FIELDS[error.param];
  if (!field) return;
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

at("ask").addEventListener("submit", start);
at("another").addEventListener("click", proposeAnother);
at("known").addEventListener("change", () => (at("prompt").value = at("known").value));
at("stop").addEventListener("click", async () => {
  await end();
  showRunning();
  say("Stopped.");
});
at("say").addEventListener("submit", (event) => {
  event.preventDefault();
  steer(at("text").value, at("span").value ? Number(at("span").value) : null);
});
at("screen").addEventListener("keydown", (event) => {
  const action = KEYS[event.key];
  if (!world || !offer.actions.includes(action)) return;
  event.preventDefault();
  steer(action, 1);
});
at("use-key").addEventListener("click", () => {
  api.key = at("key").value.trim();
  learn();
});
addEventListener("pagehide", () => void end());
setInterval(showFigures, 500);
learn();

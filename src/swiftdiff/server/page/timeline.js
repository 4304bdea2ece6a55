// Owns how a request's time is shown: a table with a bar in each row, on one scale for all that are compared.

// As swiftdiff.report.summary orders them.
const ORDER = [
  "control_image", "controlnet_load", "controlnet_wait", "lora_load", "lora_wait", "lora_patch", "text_encode",
  "cache_search", "denoise", "preview", "vae_decode", "image_encode", "other",
];
const WORDS = {
  queue: "wait in the queue", control_image: "read the control image", controlnet_load: "load ControlNets",
  controlnet_wait: "wait for ControlNets", lora_load: "load LoRAs", lora_wait: "wait for LoRAs",
  lora_patch: "patch LoRAs in", text_encode: "encode the prompt", cache_search: "search the cache",
  denoise: "denoise", preview: "show unfinished pictures", vae_decode: "decode the picture",
  image_encode: "write the picture's file", other: "everything else",
};
const LOOKS = {
  queue: "wait", controlnet_wait: "wait", lora_wait: "wait", lora_load: "load", controlnet_load: "load",
  lora_patch: "patch", denoise: "denoise",
};

/**
 * Returns the rows of a request: what, from and to in seconds, look and a remark.
 * Adapters load from its arrival on, beside everything else; stages follow each other.
 */
export function rowsOf(how) {
  const loads = how.adapters.map((adapter) => ({
    name: `load ${adapter.kind === "lora" ? "LoRA" : "ControlNet"} ${adapter.id}`,
    from: 0,
    to: adapter.source === "cache" ? 0 : adapter.load_s,
    look: "load",
    remark: remarkOn(adapter),
  }));
  const rank = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.length - 1.5);
  const stages = Object.entries(how.stages).sort(([one], [other]) => rank(one) - rank(other));
  let from = 0;
  const rows = [["queue", how.queue_wait_s], ...stages].map(([name, seconds]) => {
    const row = { name: WORDS[name] ?? name, from, to: from + seconds, look: LOOKS[name] ?? "", remark: "" };
    from = row.to;
    return row;
  });
  return [...loads, ...rows.filter((row) => row.to - row.from >= 5e-5)];
}

/** Shows requests under each other, each `{label, how}`. */
export function showTimelines(place, served) {
  const all = served.map(({ label, how }) => ({ label, how, rows: rowsOf(how) }));
  const end = Math.max(...all.flatMap(({ how, rows }) => [how.latency_s, ...rows.map((row) => row.to)]));
  const tables = all.map(({ label, how, rows }) => table(`${label}: ${milliseconds(how.latency_s)} ms`, rows, end));
  const note = element("p", "note");
  note.textContent =
    "From the request's arrival at the server to its picture. Adapters load beside the rest. What happens between " +
    "steps (patching, waiting, showing unfinished pictures) is added up and shown before or after them.";
  place.replaceChildren(...tables, note);
}

export function milliseconds(seconds) {
  const value = seconds * 1000;
  return value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en");
}

function remarkOn(adapter) {
  const came = { cache: "was in memory", store: "from the store", shared: "another request loaded it" };
  const parts = [came[adapter.source]];
  if (adapter.step_patched != null) parts.push(`patched in before step ${adapter.step_patched + 1}`);
  return parts.join(", ");
}

function table(title, rows, end) {
  const shown = element("table");
  shown.createCaption().textContent = title;
  const head = shown.createTHead().insertRow();
  for (const [name, look] of [["what", ""], ["ms", "number"], ["when", "drawn"]]) {
    const cell = element("th", look);
    cell.scope = "col";
    cell.textContent = name;
    head.append(cell);
  }
  const body = shown.createTBody();
  for (const row of rows) {
    const line = body.insertRow();
    const name = element("th");
    name.scope = "row";
    name.textContent = row.name;
    if (row.remark) {
      const remark = element("span", "note");
      remark.textContent = ` (${row.remark})`;
      name.append(remark);
    }
    line.append(name);
    const number = line.insertCell();
    number.className = "number";
    number.textContent = milliseconds(row.to - row.from);
    line.insertCell().append(bar(row, end));
  }
  return shown;
}

function bar(row, end) {
  const track = element("div", "track");
  track.setAttribute("role", "img");
  track.setAttribute("aria-label", `from ${milliseconds(row.from)} to ${milliseconds(row.to)} ms`);
  const drawn = element("i", row.look);
  drawn.style.left = `${(100 * row.from) / end}%`;
  drawn.style.width = `${(100 * (row.to - row.from)) / end}%`;
  if (row.to > row.from) track.append(drawn);
  return track;
}

function element(name, look = "") {
  const made = document.createElement(name);
  if (look) made.className = look;
  return made;
}

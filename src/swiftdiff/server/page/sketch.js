// Owns the control image that is drawn in the page: by mouse, finger or keyboard.

const SIDE = 128; // sizes of brushes and shapes are for a picture of this side
const MAX_UNDO = 30;

// The colours that the shipped model's layouts have (swiftdiff.scenes.scene).
const LAYOUT = {
  red: "#d62828", orange: "#f48420", yellow: "#f6d428", green: "#2ca044", cyan: "#20bec4", blue: "#2654d6",
  purple: "#8034b2", pink: "#ee6cac", sand: "#dac8a2", sky: "#accce6", mint: "#b8dec6", lavender: "#cec4e4",
  slate: "#626a78", charcoal: "#32343a",
};
const KINDS = {
  edges: { colours: { "line (white)": "#ffffff", "eraser (black)": "#000000" }, background: "#000000", filled: false },
  depth: {
    colours: { near: "#f0f0f0", middle: "#a8a8a8", far: "#606060", ground: "#303030" },
    background: "#303030", filled: true,
  },
  layout: { colours: LAYOUT, background: LAYOUT.sand, filled: true },
};
const OTHER = { colours: { white: "#ffffff", black: "#000000" }, background: "#000000", filled: false };

export class Sketch {
  #context;
  #canvas;
  #inputs;
  #kind = OTHER;
  #undo = [];
  #isBlank = true;
  #at = { x: 0, y: 0 };
  #isDown = false;

  /**
   * @param canvas The element to draw on, with the crosshair's element after it.
   * @param inputs Elements `tool`, `colour`, `breadth` and `status`.
   */
  constructor(canvas, inputs) {
    this.#canvas = canvas;
    this.#inputs = inputs;
    this.#context = canvas.getContext("2d", { willReadFrequently: true });
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#drag(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => this.#lift());
    canvas.addEventListener("keydown", (event) => this.#type(event));
    canvas.addEventListener("blur", () => this.#lift());
    this.begin("", SIDE);
  }

  /** Starts an empty control image for a ControlNet, `side` pixels wide and high. */
  begin(id, side) {
    this.#kind = KINDS[id] ?? OTHER;
    this.#canvas.width = this.#canvas.height = side;
    this.#at = { x: side / 2, y: side / 2 };
    const options = Object.entries(this.#kind.colours).map(([name, value]) => new Option(name, value));
    this.#inputs.colour.replaceChildren(...options);
    this.#inputs.tool.value = "circle";
    this.clear();
    this.#undo = [];
    this.#showCrosshair();
  }

  /** Whether nothing is drawn on it. */
  get isBlank() {
    return this.#isBlank;
  }

  /** Returns the control image as base64 of a PNG file. */
  toBase64() {
    return this.#canvas.toDataURL("image/png").split(",")[1];
  }

  clear() {
    this.#remember();
    this.#fill(this.#kind.background);
    this.#isBlank = true;
    this.#say("The control image is empty.");
  }

  undo() {
    const before = this.#undo.pop();
    if (before) this.#context.putImageData(before, 0, 0);
    if (!this.#undo.length) this.#isBlank = true;
    this.#say(before ? "Undone." : "There is nothing to undo.");
  }

  #fill(colour) {
    this.#context.fillStyle = colour;
    this.#context.fillRect(0, 0, this.#canvas.width, this.#canvas.height);
  }

  #remember() {
    this.#undo.push(this.#context.getImageData(0, 0, this.#canvas.width, this.#canvas.height));
    if (this.#undo.length > MAX_UNDO) this.#undo.shift();
  }

  #press(event) {
    if (event.button !== 0) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#at = this.#place(event);
    this.#apply();
  }

  #drag(event) {
    if (this.#isDown) this.#moveTo(this.#place(event));
  }

  #type(event) {
    const step = (event.shiftKey ? 1 : 4) * (this.#canvas.width / SIDE);
    const moves = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    if (event.key in moves) {
      const [x, y] = moves[event.key];
      const clamp = (value) => Math.min(Math.max(value, 0), this.#canvas.width - 1);
      this.#moveTo({ x: clamp(this.#at.x + x), y: clamp(this.#at.y + y) });
    } else if (event.key === " " || event.key === "Enter") {
      if (this.#isDown) this.#lift();
      else this.#apply();
      this.#say(this.#isDown ? `Pen is down ${this.#where()}.` : this.#doneWords());
    } else if (event.key === "Escape" && this.#isDown) {
      this.#lift();
      this.#say("Pen is up.");
    } else {
      return;
    }
    event.preventDefault();
    this.#showCrosshair();
  }

  /** Sets a shape, or lowers the pen. */
  #apply() {
    this.#remember();
    this.#isBlank = false;
    if (this.#inputs.tool.value === "pen") {
      this.#isDown = true;
      this.#line(this.#at, this.#at);
    } else if (this.#inputs.tool.value === "fill") {
      this.#fill(this.#inputs.colour.value);
    } else {
      this.#shape();
    }
    this.#say(this.#doneWords());
  }

  #lift() {
    this.#isDown = false;
  }

  #moveTo(place) {
    if (this.#isDown) this.#line(this.#at, place);
    this.#at = place;
    this.#showCrosshair();
  }

  #place(event) {
    const box = this.#canvas.getBoundingClientRect();
    const scale = this.#canvas.width / box.width;
    return { x: (event.clientX - box.left) * scale, y: (event.clientY - box.top) * scale };
  }

  #line(from, to) {
    const context = this.#context;
    const thin = this.#kind.filled ? Number(this.#inputs.breadth.value) / 2 : 1.5;
    const erases = this.#inputs.colour.value === this.#kind.background;
    context.strokeStyle = this.#inputs.colour.value;
    context.lineWidth = Math.max(erases ? Number(this.#inputs.breadth.value) / 2 : thin, 1) * this.#unit();
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(from.x, from.y);
    context.lineTo(to.x, to.y);
    context.stroke();
  }

  #shape() {
    const context = this.#context;
    const { x, y } = this.#at;
    const radius = Number(this.#inputs.breadth.value) * this.#unit();
    context.beginPath();
    if (this.#inputs.tool.value === "circle") context.arc(x, y, radius, 0, 2 * Math.PI);
    else if (this.#inputs.tool.value === "square") context.rect(x - radius, y - radius, 2 * radius, 2 * radius);
    else {
      context.moveTo(x, y - 1.05 * radius);
      context.lineTo(x + radius, y + 0.75 * radius);
      context.lineTo(x - radius, y + 0.75 * radius);
      context.closePath();
    }
    context.fillStyle = context.strokeStyle = this.#inputs.colour.value;
    context.lineWidth = 1.5 * this.#unit();
    if (this.#kind.filled) context.fill();
    else context.stroke();
  }

  #unit() {
    return this.#canvas.width / SIDE;
  }

  #where() {
    const percent = (value) => Math.round((100 * value) / this.#canvas.width);
    return `at ${percent(this.#at.x)} % from the left, ${percent(this.#at.y)} % from the top`;
  }

  #doneWords() {
    const { tool, colour } = this.#inputs;
    if (tool.value === "pen") return this.#isDown ? `Pen is down ${this.#where()}.` : "Pen is up.";
    if (tool.value === "fill") return `Filled everything with ${colour.selectedOptions[0].text}.`;
    return `Set a ${tool.value}, ${colour.selectedOptions[0].text}, ${this.#where()}.`;
  }

  #say(words) {
    this.#inputs.status.textContent = words;
  }

  #showCrosshair() {
    const crosshair = this.#canvas.nextElementSibling;
    crosshair.style.left = `${(100 * this.#at.x) / this.#canvas.width}%`;
    crosshair.style.top = `${(100 * this.#at.y) / this.#canvas.height}%`;
  }
}

// Owns how the page talks to the server: OpenAI's Images API, its errors and its streams.

/** A refusal, in the server's words. `param` is the field that is wrong, or null. */
export class ApiError extends Error {
  constructor(status, message, param = null) {
    super(message);
    this.status = status;
    this.param = param;
  }
}

/** Asks one server; `key` may be set later. Addresses are relative, so that a proxy may add a prefix. */
export class Api {
  key = "";

  async get(path) {
    const response = await this.send(path, {});
    return response.json();
  }

  /** Returns a picture as an address for `<img>`; whoever asked gives it back with `URL.revokeObjectURL`. */
  async picture(path) {
    const response = await this.send(path, {});
    return URL.createObjectURL(await response.blob());
  }

  /**
   * Asks for a picture and follows its stream.
   * @param body What `POST v1/images/generations` takes.
   * @param onPartial Called with each event of an unfinished picture.
   * @returns The completed event: `b64_json` and `swiftdiff`.
   */
  async generate(body, signal, onPartial) {
    const response = await this.send("v1/images/generations", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
      signal,
    });
    for await (const event of readEvents(response.body)) {
      if (event.error) throw new ApiError(200, event.error.message ?? "the request failed", event.error.param);
      if (event.type === "image_generation.completed") return event;
      if (event.type === "image_generation.partial_image") onPartial(event);
    }
    throw new ApiError(200, "the server ended the stream without a picture");
  }

  /** Returns the response to a request, which has the key with it. */
  async send(path, options) {
    const headers = { ...options.headers, ...(this.key && { Authorization: `Bearer ${this.key}` }) };
    let response;
    try {
      response = await fetch(new URL(path, document.baseURI), { ...options, headers });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(0, "the server does not answer; is it still running?");
    }
    if (response.ok) return response;
    const { message, param } = await readError(response);
    const wait = response.headers.get("Retry-After");
    const again = wait && !message.includes("again") ? `${message} (try again in ${wait} s)` : message;
    throw new ApiError(response.status, again, param);
  }
}

async function readError(response) {
  try {
    const { error } = await response.json();
    return { message: error.message, param: error.param };
  } catch {
    return { message: `the server answered HTTP ${response.status}`, param: null };
  }
}

/** Yields the JSON of each server-sent event. */
async function* readEvents(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (text + value).replaceAll("\r\n", "\n").split("\n\n");
      text = events.pop();
      for (const event of events) {
        const lines = event.split("\n").filter((line) => line.startsWith("data:"));
        const data = lines.map((line) => line.slice(5).trimStart()).join("\n");
        if (data && data !== "[DONE]") yield JSON.parse(data);
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

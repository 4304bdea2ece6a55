// Owns how the OpenAPI document is shown: operations, their bodies and answers, and the schemas of both.

const METHODS = ["get", "post", "put", "patch", "delete"];
const count = (value, noun) => `${value} ${value === 1 ? noun : noun.replace(/y$/, "ie") + "s"}`;
const LIMITS = [
  ["minimum", (value) => `at least ${value}`],
  ["exclusiveMinimum", (value) => `above ${value}`],
  ["maximum", (value) => `at most ${value}`],
  ["exclusiveMaximum", (value) => `below ${value}`],
  ["minLength", (value) => `at least ${count(value, "character")}`],
  ["maxLength", (value) => `at most ${count(value, "character")}`],
  ["minItems", (value) => `at least ${count(value, "entry")}`],
  ["maxItems", (value) => `at most ${count(value, "entry")}`],
  ["pattern", (value) => `matches ${value}`],
];

/** Makes an element; children are elements or texts, never markup. */
function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const nameOf = (reference) => reference.split("/").at(-1);
const anchorOf = (name) => `schema-${name}`;
const sentences = (text) => text.split(/\n\s*\n/).map((part) => part.trim()).filter(Boolean);

/** Splits a schema's description into what it is, and what each field means where it says so. */
function meaningsOf(description) {
  const [intro, attributes = ""] = description.split(/^Attributes:$/m);
  const meanings = new Map();
  let field = null;
  for (const line of attributes.split("\n")) {
    const begun = /^ {4}(\w+): (.*)$/.exec(line);
    if (begun) meanings.set((field = begun[1]), begun[2]);
    else if (field && line.startsWith("     ")) meanings.set(field, `${meanings.get(field)} ${line.trim()}`);
    else field = null;
  }
  return { intro, meanings };
}

/** Returns text whose words in double backticks are code. */
const marked = (text) =>
  text.split("``").map((part, index) => (index % 2 ? make("code", {}, part) : part));

/** Returns what a value may be, as elements and texts, with links to schemas. */
function typeOf(schema) {
  if (schema.$ref) {
    const name = nameOf(schema.$ref);
    return [make("a", { href: `#${anchorOf(name)}` }, name)];
  }
  const several = schema.anyOf ?? schema.oneOf;
  if (several) return several.flatMap((each, index) => (index ? [" or ", ...typeOf(each)] : typeOf(each)));
  if (schema.const !== undefined) return [make("code", {}, JSON.stringify(schema.const))];
  if (schema.enum) {
    return schema.enum.flatMap((each, index) => [index ? " or " : "", make("code", {}, JSON.stringify(each))]);
  }
  if (schema.type === "array") return ["list of ", ...typeOf(schema.items ?? {})];
  if (schema.type === "object" && typeof schema.additionalProperties === "object") {
    return ["object of ", ...typeOf(schema.additionalProperties)];
  }
  const kind = schema.type ?? "anything";
  return [schema.format ? `${kind} (${schema.format})` : kind];
}

/** Returns the limits of a value, those of its kinds included, as one sentence. */
function limitsOf(schema) {
  const kinds = [schema, ...(schema.anyOf ?? [])];
  const found = kinds.flatMap((kind) =>
    LIMITS.filter(([key]) => kind[key] !== undefined).map(([key, say]) => say(kind[key])),
  );
  if (schema.default !== undefined && schema.default !== null) found.push(`default ${JSON.stringify(schema.default)}`);
  return found.join(", ");
}

function table(caption, heads, rows) {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const body = rows.map(([first, ...others]) =>
    make("tr", {}, make("th", { scope: "row" }, ...first), ...others.map((cell) => make("td", {}, ...cell))),
  );
  const made = make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, ...body));
  return make("div", { class: "scroll" }, made);
}

/** Returns the section of one operation. */
function operationOf(path, method, operation, id) {
  const heading = make("h2", {}, make("span", { class: "method" }, method.toUpperCase()), make("code", {}, path));
  const section = make("section", { id, "aria-label": `${method.toUpperCase()} ${path}` }, heading);
  if (operation.summary) section.append(make("p", {}, operation.summary));
  for (const part of sentences(operation.description ?? "")) section.append(make("p", { class: "note" }, ...marked(part)));
  if (operation.security?.length) section.append(make("p", { class: "note" }, "Needs the server's API key."));
  if (operation.parameters?.length) {
    const rows = operation.parameters.map((each) => [
      [make("code", {}, each.name)],
      [each.in],
      [...typeOf(each.schema ?? {}), each.required ? ", required" : ""],
      [each.description ?? ""],
    ]);
    section.append(table("Parameters", ["Name", "Where", "Type", "Meaning"], rows));
  }
  for (const [kind, content] of Object.entries(operation.requestBody?.content ?? {})) {
    section.append(make("p", {}, "Takes ", make("code", {}, kind), ": ", ...typeOf(content.schema ?? {})));
  }
  const rows = Object.entries(operation.responses ?? {}).map(([status, response]) => [
    [make("code", {}, status)],
    [response.description ?? ""],
    Object.entries(response.content ?? {}).map(([kind, content]) =>
      make("p", {}, make("code", {}, kind), content.schema ? ": " : "", ...(content.schema ? typeOf(content.schema) : [])),
    ),
  ]);
  section.append(table("Answers", ["Status", "When", "Content"], rows));
  return section;
}

/** Returns the section of one schema: a row for each field. */
function schemaOf(name, schema) {
  const section = make("section", { id: anchorOf(name), "aria-label": name }, make("h3", {}, name));
  const { intro, meanings } = meaningsOf(schema.description ?? "");
  for (const part of sentences(intro)) section.append(make("p", { class: "note" }, ...marked(part)));
  const required = new Set(schema.required ?? []);
  const rows = Object.entries(schema.properties ?? {}).map(([field, each]) => [
    [make("code", {}, field)],
    [...typeOf(each), required.has(field) ? ", required" : ""],
    [limitsOf(each)],
    marked(each.description ?? meanings.get(field) ?? ""),
  ]);
  if (rows.length) section.append(table(`Fields of ${name}`, ["Field", "Type", "Limits", "Meaning"], rows));
  else section.append(make("p", {}, ...typeOf(schema)));
  return section;
}

function show(description) {
  const { info, paths, components } = description;
  document.title = `${info.title}: the API`;
  document.getElementById("title").textContent = `${info.title} ${info.version}: the API`;
  document.getElementById("summary").textContent = info.summary ?? info.description ?? "";
  const [contents, operations] = ["contents", "operations"].map((id) => document.getElementById(id));
  const list = (id, ...text) => contents.append(make("li", {}, make("a", { href: `#${id}` }, ...text)));
  for (const [path, methods] of Object.entries(paths)) {
    for (const method of METHODS.filter((each) => methods[each])) {
      const operation = methods[method];
      const id = `operation-${operation.operationId ?? `${method}-${path}`}`;
      list(id, `${method.toUpperCase()} ${path}`);
      operations.append(operationOf(path, method, operation, id));
    }
  }
  const schemas = Object.entries(components?.schemas ?? {}).sort(([one], [other]) => one.localeCompare(other));
  if (!schemas.length) return;
  operations.append(make("h2", { id: "schemas" }, "Schemas"));
  list("schemas", "Schemas");
  for (const [name, schema] of schemas) operations.append(schemaOf(name, schema));
}

try {
  const response = await fetch(new URL("openapi.json", document.baseURI));
  if (!response.ok) throw new Error(`the server answered HTTP ${response.status}`);
  show(await response.json());
  if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
} catch (error) {
  const told = make("p", { class: "warning", role: "alert" }, `The description could not be shown: ${error.message}.`);
  document.getElementById("summary").replaceWith(told);
}

// @ts-check
/**
 * The page at /. It sends a prompt through the relay and shows the answer as it comes, what its connection goes through
 * and how fast it is. `/#ID` reads the stream of that id from its start.
 *
 * What a model says is text: it goes into text nodes alone and never becomes markup.
 *
 * @typedef {import("./relay.js").RelayStream} RelayStream
 * @typedef {import("./relay.js").RelayChange} RelayChange
 * @typedef {import("./relay.js").StartOptions} StartOptions
 */

import { RelayError, read, start } from "./relay.js";

/** The median is that of so many gaps, the last ones. */
const GAPS = 1000;
/** The figures are written so often at most (ms). */
const FIGURES = 250;
const ENDED = ["idle", "done", "cancelled", "failed", "left"];

/** @param {string} id @returns {any} */
const element = (id) => document.getElementById(id);
const [prompt, model, dialect, transport] = ["prompt", "model", "dialect", "transport"].map(element);
const [send, cut, resume, cancel] = ["send", "cut", "resume", "cancel"].map(element);
const [output, state, detail, address] = ["output", "state", "detail", "stream-id"].map(element);

/** How each dialect is asked. @type {Record<string, () => [string, StartOptions]>} */
const DIALECTS = {
  chat: () => ["/v1/chat/completions", { body: { model: model.value, stream: true, messages: messages() } }],
  responses: () => ["/v1/responses", { body: { model: model.value, stream: true, input: prompt.value } }],
  messages: () => [
    "/v1/messages",
    {
      body: { model: model.value, stream: true, max_tokens: 1024, messages: messages() },
      headers: { "anthropic-version": "2023-06-01" },
    },
  ],
};

const messages = () => [{ role: "user", content: prompt.value }];

/** The answer's text in an event of any of the dialects. @param {string} data @returns {string} */
function textOf(data) {
  if (!data.startsWith("{")) return ""; // [DONE]
  const said = JSON.parse(data);
  if (said.type === "response.output_text.delta") return said.delta;
  if (said.type === "content_block_delta") return said.delta.text ?? "";
  const choice = said.choices?.find((/** @type {any} */ one) => one.index === 0);
  return choice?.delta?.content ?? "";
}

/** One reading of one stream, and what the page shows of it. */
class Reading {
  /** @type {RelayStream | null} */
  stream = null;
  #leaving = new AbortController();
  #text = new Text();
  #begun = performance.now();
  #tokens = 0;
  #first = 0;
  #last = 0;
  /** @type {number[]} */
  #gaps = [];
  #written = 0;
  #dropped = false;
  #resumes = 0;

  constructor() {
    output.replaceChildren(this.#text);
    output.ariaBusy = "true"; // read out as a whole, when it is one
    element("error").textContent = "";
    address.textContent = "";
    address.removeAttribute("href");
    this.#figures();
  }

  /** To its end. @param {(options: StartOptions) => Promise<RelayStream>} open */
  async follow(open) {
    try {
      this.stream = await open({
        transport: transport.value,
        signal: this.#leaving.signal,
        onChange: (change) => this === reading && this.#changed(change),
      });
      address.textContent = this.stream.id;
      address.href = `#${this.stream.id}`;
      history.replaceState(null, "", address.href); // a reload comes back to it
      show(this.stream.state);
      for await (const { seq, data } of this.stream) {
        element("seq").textContent = seq ?? element("seq").textContent;
        this.#token(textOf(data));
      }
    } catch (error) {
      if (state.dataset.state === "failed" && this === reading) complain(error);
    }
    if (this !== reading) return;
    output.ariaBusy = "false";
    this.#figures();
  }

  /** The generation goes on without this reader, for as long as the relay lets it. */
  leave() {
    this.#leaving.abort();
  }

  /** @param {string} text */
  #token(text) {
    if (!text) return;
    this.#text.appendData(text);
    const now = performance.now();
    if (this.#tokens++) this.#gaps.push(now - this.#last);
    else this.#first = now;
    if (this.#gaps.length > GAPS) this.#gaps.shift();
    this.#last = now;
    if (now - this.#written >= FIGURES) this.#figures();
  }

  #figures() {
    this.#written = performance.now();
    const sorted = [...this.#gaps].sort((one, other) => one - other);
    const seconds = (this.#last - this.#first) / 1000;
    element("ttft").textContent = this.#tokens ? `${Math.round(this.#first - this.#begun)} ms` : "";
    element("gap").textContent = sorted.length ? `${sorted[sorted.length >> 1]?.toFixed(1)} ms` : "";
    element("rate").textContent = seconds ? ((this.#tokens - 1) / seconds).toFixed(1) : "";
    element("resumes").textContent = `${this.#resumes}`;
    if (!this.#tokens) element("seq").textContent = "";
  }

  /** @param {RelayChange} change */
  #changed(change) {
    if (change.type === "gap") {
      detail.textContent = `events ${change.first} to ${change.last} were dropped`;
      return;
    }
    if (change.type === "open" && this.#dropped) element("resumes").textContent = `${++this.#resumes}`;
    if (change.type === "open" || change.type === "dropped") this.#dropped = change.type === "dropped";
    let words = "";
    if (change.type === "dropped" && change.attempt) {
      words = `try ${change.attempt}`;
      if (change.delay !== null) words += ` in ${(change.delay / 1000).toFixed(1)} s`;
    }
    show(change.type, words);
  }
}

/** @param {unknown} error */
function complain(error) {
  const code = error instanceof RelayError ? ` (${error.status ? `${error.status} ` : ""}${error.code})` : "";
  element("error").textContent = `${error instanceof Error ? error.message : error}${code}`;
}

/** @param {string} now @param {string} words */
function show(now, words = "") {
  state.textContent = state.dataset.state = now;
  detail.textContent = words;
  const running = !ENDED.includes(now);
  const focused = document.activeElement;
  send.disabled = running;
  cut.disabled = !running || now === "dropped" || !reading?.stream;
  resume.disabled = now !== "dropped";
  cancel.disabled = !running;
  // A button that is disabled loses the focus, and the keyboard its place.
  const next = running ? [resume, cancel] : [send];
  if (focused instanceof HTMLButtonElement && focused.disabled) next.find((button) => !button.disabled)?.focus();
}

/** @type {Reading | null} */
let reading = null;

/** @param {(options: StartOptions) => Promise<RelayStream>} open */
function begin(open) {
  reading?.leave();
  reading = new Reading();
  show("connecting");
  return reading.follow(open);
}

function join() {
  const id = location.hash.slice(1);
  if (id && id !== reading?.stream?.id) void begin((options) => read(id, options));
}

element("request").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  const [path, asked] = /** @type {[string, StartOptions]} */ (DIALECTS[dialect.value]?.());
  if (!send.disabled) void begin((options) => start(path, { ...asked, ...options }));
});
prompt.addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) element("request").requestSubmit();
});
element("join").addEventListener("submit", (/** @type {Event} */ event) => {
  event.preventDefault();
  location.hash = element("open-id").value.trim();
});
cut.addEventListener("click", () => reading?.stream?.cut());
resume.addEventListener("click", () => reading?.stream?.resume());
cancel.addEventListener("click", () => {
  // Before there is an answer there is no id: then to leave is all that can be done.
  if (!reading?.stream) return reading?.leave();
  const { stream } = reading;
  return stream.cancel().catch(complain);
});
addEventListener("hashchange", join);
// Until here a click would have sent the form, and loaded the page again.
element("open").disabled = false;
show("idle");
join();

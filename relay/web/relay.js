// @ts-check
/**
 * relay.js reads the streams of a relay, in a browser or in Node 18 and newer, over connections that may break.
 *
 *     const stream = await start("/v1/chat/completions", { body: { model, messages, stream: true } });
 *     for await (const event of stream) show(event.data);
 *
 * Its rules:
 * - The loop ends by itself if and only if the answer is whole. All else is thrown: a RelayError, or the reason of the
 *   signal that was aborted.
 * - No event comes twice, out of order, or after one that was left out unsaid.
 * - A connection that broke is made again, from the last event that was seen. A generation is paid for once: a POST is
 *   repeated under its own Idempotency-Key.
 * - Over fetch nothing is read ahead of the reader: a slow one slows the relay down and does not fill this memory.
 *
 * It depends on nothing and knows no model's dialect. relay.d.ts has its types and says what each part is for. The
 * standard is WHATWG HTML, 9.2, server-sent events.
 *
 * @typedef {import("./relay.d.ts").RelayEvent} RelayEvent
 * @typedef {import("./relay.d.ts").RelayChange} RelayChange
 * @typedef {import("./relay.d.ts").RelayStatus} RelayStatus
 * @typedef {import("./relay.d.ts").ParsedEvent} ParsedEvent
 * @typedef {import("./relay.d.ts").StartOptions} StartOptions
 * @typedef {import("./relay.d.ts").ReadOptions} ReadOptions
 */

/** Pauses between tries (ms): a random part (full jitter) of the first, doubled up to the longest. */
export const BACKOFF = Object.freeze({ first: 250, longest: 10_000 });
/** So many tries in a row without a new event are enough. */
export const TRIES = 10;
/** Whoever wants to be left alone for longer (seconds) is not waited for. */
export const LONGEST_RETRY_AFTER = 60;
/** A connection without a byte for so long (ms) is dead: three heartbeats of the relay. */
export const SILENCE = 45_000;
/** The characters of one event. The relay's own bound is 1 MiB unless it was told otherwise. */
export const LONGEST_EVENT = 16 * 1024 * 1024;
/** An EventSource cannot be made to wait: so many events ahead of its reader it is closed, and opened again later. */
export const EVENTS_AHEAD = 10_000;

const ANTHROPIC = `message_start message_delta message_stop content_block_start content_block_delta content_block_stop
  ping`;
const RESPONSES = `created queued in_progress completed failed incomplete output_item.added output_item.done
  content_part.added content_part.done output_text.delta output_text.done output_text.annotation.added refusal.delta
  refusal.done reasoning_text.delta reasoning_text.done reasoning_summary_part.added reasoning_summary_part.done
  reasoning_summary_text.delta reasoning_summary_text.done function_call_arguments.delta function_call_arguments.done
  custom_tool_call_input.delta custom_tool_call_input.done file_search_call.in_progress file_search_call.searching
  file_search_call.completed web_search_call.in_progress web_search_call.searching web_search_call.completed
  code_interpreter_call.in_progress code_interpreter_call.interpreting code_interpreter_call.completed
  code_interpreter_call_code.delta code_interpreter_call_code.done image_generation_call.in_progress
  image_generation_call.generating image_generation_call.partial_image image_generation_call.completed
  mcp_call.in_progress mcp_call.completed mcp_call.failed mcp_call_arguments.delta mcp_call_arguments.done
  mcp_list_tools.in_progress mcp_list_tools.completed mcp_list_tools.failed`;
export const EVENTS = Object.freeze([
  ...ANTHROPIC.split(/\s+/),
  ...RESPONSES.split(/\s+/).map((name) => `response.${name}`),
]);

/** With overflow "merge", which is the relay's own choice, what lay before a slow reader comes as one event with the
 *  id of the last. Only deltas of text are merged, so no other event may skip a number. */
const MERGED = /"(?:delta|text)"/;
/** Codes of the relay: by somebody, or because nobody was there to read it. */
const CANCELLED = new Set(["cancelled", "orphaned"]);
const CUT = "cut on purpose";
const FINAL = new Set(["done", "cancelled", "failed", "left"]);

export class RelayError extends Error {
  name = "RelayError";

  /** @param {number} status @param {string} code @param {string} message
   *  @param {{ body?: any, retryAfter?: number | null, cause?: unknown }} [more] */
  constructor(status, code, message, { body, retryAfter = null, cause } = {}) {
    super(message, { cause });
    this.status = status;
    this.code = code;
    this.body = body;
    this.retryAfter = retryAfter;
  }
}

/** What is no reason to stop: it is tried again, after `retryAfter` seconds at least. Callers see the last vain one. */
class Dropped extends RelayError {}

/** @param {unknown} cause */
const broken = (cause) => new Dropped(0, "unreachable", "the connection broke", { cause });

/** What an answer means that is no success. @param {Response} response @param {boolean} resuming */
async function refusal(response, resuming) {
  const { status, statusText, headers } = response;
  const body = await response.json().catch(() => undefined);
  const wait = [409, 429, 503].includes(status) ? retryAfter(headers.get("retry-after") ?? "") : null;
  // Without the relay's words it is a gateway in front of it, which found nobody home: a restart, perhaps.
  const gateway = resuming && !body?.error && [502, 503, 504].includes(status);
  const again = wait === null ? gateway : wait <= LONGEST_RETRY_AFTER;
  const { code, type, message = `${status} ${statusText}` } = body?.error ?? {};
  const error = again ? Dropped : RelayError;
  return new error(status, String(code ?? type ?? "refused"), message, { body, retryAfter: wait });
}

/** Seconds from a number or a date, or null. @param {string} value */
function retryAfter(value) {
  const seconds = /^\d+(\.\d+)?$/.test(value) ? Number(value) : (Date.parse(value) - Date.now()) / 1000;
  return Number.isNaN(seconds) ? null : Math.max(0, seconds);
}

const offline = () => globalThis.navigator?.onLine === false;

/** Outside of https and localhost a browser has no randomUUID. */
const unique = () =>
  globalThis.crypto?.randomUUID?.() ?? Array.from("123", () => Math.random().toString(36).slice(2)).join("");

export class EventParser {
  #decoder = new TextDecoder(); // takes a BOM off, and keeps the first bytes of a character that was cut
  #line = "";
  #afterCR = false;
  #data = "";
  #event = "";
  /** @type {string | null} */
  #id = null;
  #lastId;
  #longest;

  /** @param {{ lastEventId?: string, longest?: number }} [options] */
  constructor({ lastEventId = "", longest = LONGEST_EVENT } = {}) {
    this.#lastId = lastEventId;
    this.#longest = longest;
  }

  /** @param {Uint8Array} bytes @returns {ParsedEvent[]} */
  push(bytes) {
    /** @type {ParsedEvent[]} */
    const events = [];
    const text = this.#decoder.decode(bytes, { stream: true });
    if (!text) return events;
    // A CR ends its line at once. The LF of a CR LF may come with the next piece, and then ends nothing.
    let start = this.#afterCR && text[0] === "\n" ? 1 : 0;
    this.#afterCR = text.endsWith("\r");
    const ends = /\r\n?|\n/g;
    ends.lastIndex = start;
    for (let end = ends.exec(text); end; end = ends.exec(text)) {
      const line = this.#line + text.slice(start, end.index);
      this.#line = "";
      start = ends.lastIndex;
      if (line) this.#field(line);
      else this.#dispatch(events);
    }
    this.#line += text.slice(start);
    this.#bound(this.#line);
    return events;
  }

  /** A comment, as heartbeats are, is one without a name. @param {string} line */
  #field(line) {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data") {
      this.#bound(value);
      this.#data += `${value}\n`;
    } else if (name === "event") {
      this.#event = value;
    } else if (name === "id" && !value.includes("\0")) {
      this.#id = this.#lastId = value;
    }
  }

  /** @param {ParsedEvent[]} events */
  #dispatch(events) {
    const { event, data, id } = { event: this.#event || "message", data: this.#data, id: this.#id };
    if (data) events.push({ event, data: data.slice(0, -1), id, lastEventId: this.#lastId });
    this.#data = this.#event = "";
    this.#id = null;
  }

  /** @param {string} more */
  #bound(more) {
    if (this.#data.length + more.length <= this.#longest) return;
    throw new RelayError(0, "event_too_long", `an event has more than ${this.#longest} characters`);
  }
}

export class RelayStream {
  id = "";
  seq = 0;
  /** @type {Exclude<RelayChange["type"], "gap">} */
  state = "connecting";
  #options;
  #base;
  #events = this.#run();
  #connection = new AbortController();
  #tries = 0;
  #unnumbered = false; // events came that cannot be asked for again
  #merging; // may deltas stand for several
  #cut = false;
  #wake = () => {};
  /** Why no more is wanted. @type {unknown} */
  #end = undefined;
  #abort = () => this.#stop("left", this.#options.signal?.reason);

  /** @param {StartOptions & ReadOptions} options @param {string | URL} base */
  constructor(options, base) {
    if (options.transport === "eventsource" && !globalThis.EventSource) throw new TypeError("no EventSource here");
    options.signal?.throwIfAborted();
    options.signal?.addEventListener("abort", this.#abort, { once: true });
    this.#options = options;
    // An EventSource cannot say what it wants.
    this.#merging = [undefined, "merge"].includes(options.overflow) || options.transport === "eventsource";
    this.#base = String(base).replace(/\/+$/, "");
    this.#change({ type: "connecting" });
  }

  /** @param {string | URL} url @param {StartOptions} [options] */
  static async start(url, options = {}) {
    const target = new URL(url, globalThis.location?.href);
    const stream = new RelayStream(options, options.base ?? target.origin);
    const { body, onDisconnect, placeholder } = options;
    const detached = options.transport === "eventsource";
    const init = {
      method: "POST",
      body: typeof body === "string" ? body : JSON.stringify(body),
      headers: stream.#headers({
        "Content-Type": "application/json",
        Accept: "text/event-stream",
        // If the head of the answer gets lost, the same key brings the same generation.
        "Idempotency-Key": unique(),
        ...(detached ? { Prefer: "respond-async" } : { "Relay-Resumable": "1" }),
        ...(onDisconnect && { "Relay-On-Disconnect": onDisconnect }),
        ...(placeholder && { "Relay-Placeholder": placeholder === true ? "1" : placeholder }),
      }),
    };
    stream.#events = stream.#run(
      await stream.#patiently(async () => {
        const answer = await stream.#ask(target, init, false);
        stream.id = answer.headers.get("relay-stream-id") ?? "";
        return detached && answer.status === 202 ? stream.#listen() : stream.#body(answer);
      }),
    );
    return stream;
  }

  /** @param {string} id @param {ReadOptions} [options] */
  static async read(id, options = {}) {
    const base = options.base ?? globalThis.location?.origin;
    if (!base) throw new TypeError("no base: say where the relay is");
    const stream = new RelayStream(options, base);
    stream.id = id;
    if (typeof options.after === "number") stream.seq = options.after;
    stream.#events = stream.#run(await stream.#patiently(() => stream.#attach()));
    return stream;
  }

  [Symbol.asyncIterator]() {
    return this.#events;
  }

  async cancel() {
    const status = await this.#control("POST", "/cancel");
    if (status.state === "cancelled") {
      this.#stop("cancelled", new RelayError(0, "cancelled", "the stream was cancelled", { body: status }));
    }
    return status;
  }

  status() {
    return this.#control("GET");
  }

  cut() {
    if (FINAL.has(this.state) || this.#cut) return;
    this.#cut = true;
    this.#change({ type: "dropped", attempt: 0, delay: null, error: null });
    this.#connection.abort(CUT);
    this.#wake();
  }

  resume() {
    this.#cut = false;
    this.#wake();
  }

  /** @param {AsyncIterable<ParsedEvent>} [source] the first connection, if there is one already
   *  @returns {AsyncGenerator<RelayEvent, void, undefined>} */
  async *#run(source) {
    try {
      for (;;) {
        try {
          source ??= await this.#attach();
          for await (const parsed of source) {
            const event = this.#accept(parsed);
            if (event) yield event;
            if (this.#end !== undefined) throw this.#end;
          }
          return this.#change({ type: "done" });
        } catch (error) {
          source = undefined;
          await this.#pause(error);
        }
      }
    } finally {
      this.#stop("left", null);
    }
  }

  /** What of an event is for the reader, or null. @param {ParsedEvent} parsed @returns {RelayEvent | null} */
  #accept({ id, event, data }) {
    if (event === "relay.waiting") {
      if (this.state === "open") this.#change({ type: "waiting" });
      return null;
    }
    if (event === "relay.gap") {
      const { first, last } = JSON.parse(data);
      if (last <= this.seq) return null;
      this.#follow(first);
      this.seq = last;
      this.#change({ type: "gap", first, last });
      return null;
    }
    if (this.state === "waiting") this.#change({ type: "open" });
    // An id is {stream}-{seq}, and the stream's own may hold a dash.
    const seq = id?.startsWith(`${this.id}-`) ? Number(id.slice(this.id.length + 1)) : NaN;
    if (!Number.isSafeInteger(seq)) {
      this.#unnumbered = true;
      return { id, seq: null, event, data };
    }
    if (seq <= this.seq) return null;
    if (!this.#merging || !MERGED.test(data)) this.#follow(seq);
    this.seq = seq;
    this.#tries = 0;
    return { id, seq, event, data };
  }

  /** Throws if something is missing before this number. @param {number} seq */
  #follow(seq) {
    if (seq <= this.seq + 1 || (!this.seq && this.#options.after === "latest")) return;
    throw new RelayError(0, "hole", `event ${seq} came after event ${this.seq}: what lies between is missing`);
  }

  /** Connects behind what was seen. @returns {Promise<AsyncIterable<ParsedEvent>>} */
  async #attach() {
    const native = this.#options.transport === "eventsource" && (await this.#hasMore(this.seq));
    return native ? this.#listen() : this.#get();
  }

  /** @returns {Promise<AsyncIterable<ParsedEvent>>} */
  async #get() {
    const place = this.#place();
    const headers = this.#headers({ Accept: "text/event-stream", ...(place && { "Last-Event-ID": place }) });
    const answer = await this.#ask(this.#url(), { headers });
    if (answer.status === 204) return nothing();
    // Without numbers nobody knows how much of it has been seen.
    if (this.#unnumbered && !this.seq) throw new RelayError(0, "not_resumable", "its events have no numbers");
    return this.#body(answer);
  }

  /** Whether behind this event there is, or will be, one that an EventSource could read. @param {number} seq */
  async #hasMore(seq) {
    const { state, tail, oldest } = await this.#control("GET", "", this.#connection.signal);
    const more = state === "waiting" || state === "streaming" ? seq <= tail : seq < tail;
    return more && seq + 1 >= (oldest ?? 1);
  }

  #place() {
    if (this.seq) return `${this.id}-${this.seq}`;
    return this.#options.after === "latest" ? "latest" : "";
  }

  /** The events of an answer. @param {Response} answer */
  #body({ body, headers, status }) {
    if (!this.id || !body || !headers.get("content-type")?.startsWith("text/event-stream")) {
      throw new RelayError(status, "not_a_stream", "the answer is no stream of a relay");
    }
    this.#change({ type: "open" });
    return this.#parse(body.getReader());
  }

  /** @param {ReadableStreamDefaultReader<Uint8Array>} reader */
  async *#parse(reader) {
    const parser = new EventParser();
    const { silence = SILENCE } = this.#options;
    for (;;) {
      const timer = silence ? setTimeout(() => this.#connection.abort(), silence) : undefined;
      const read = reader.read().catch((error) => Promise.reject(broken(error)));
      const { done, value } = await read.finally(() => clearTimeout(timer));
      if (done) return;
      yield* parser.push(value);
    }
  }

  /** The same from a browser's EventSource. It connects again by itself, also after an end, of which it knows none. */
  async *#listen() {
    const place = encodeURIComponent(this.#place() || "0");
    const withCredentials = this.#options.credentials === "include";
    const source = new EventSource(`${this.#url()}?last_event_id=${place}`, { withCredentials });
    /** @type {ParsedEvent[]} */
    const queue = [];
    let wake = () => {};
    let lastId = "";
    let seq = this.seq;
    /** Why it is over; null: there is no more for it. @type {unknown} */
    let end;
    const close = (/** @type {unknown} */ reason) => {
      source.close();
      if (end === undefined) end = reason;
      wake();
    };
    const deliver = (/** @type {MessageEvent} */ { type, data, lastEventId }) => {
      // The last id persists, so an event that has none shows the one before.
      queue.push({ id: lastEventId === lastId ? null : lastEventId, event: type, data, lastEventId });
      lastId = lastEventId;
      seq = Number(lastId.slice(this.id.length + 1)) || seq;
      if (queue.length >= EVENTS_AHEAD) close(broken("its reader is slower than the stream"));
      wake();
    };
    const failed = () => {
      if (source.readyState === EventSource.CLOSED) return close(broken("refused"));
      if (++this.#tries > TRIES) return close(broken("it does not come back"));
      const dropped = (/** @type {unknown} */ error) => {
        if (!(error instanceof Dropped)) close(error);
        else if (source.readyState === EventSource.CONNECTING) {
          this.#change({ type: "dropped", attempt: this.#tries, delay: null, error });
        }
      };
      // After an end it connects again as well, in some seconds, and learns from a 204 that it was one.
      this.#hasMore(seq).then((more) => (more ? dropped(broken("cut")) : close(null)), dropped);
    };
    const stop = () => close(broken("cut"));
    const { signal } = this.#connection;
    if (signal.aborted) stop();
    signal.addEventListener("abort", stop);
    source.onopen = () => this.#change({ type: "open" });
    // An event of the name "error" has data; an error of the connection has none.
    source.onerror = (event) => (event instanceof MessageEvent ? deliver(event) : failed());
    for (const name of new Set(["message", "relay.waiting", "relay.gap", ...(this.#options.events ?? EVENTS)])) {
      if (name !== "error") source.addEventListener(name, deliver);
    }
    try {
      for (;;) {
        for (let next = queue.shift(); next; next = queue.shift()) yield next;
        if (end === null) return yield* await this.#get(); // which says how it ended
        if (end !== undefined) throw end;
        await new Promise((resolve) => (wake = () => resolve(undefined)));
      }
    } finally {
      source.close();
    }
  }

  /** @param {string} method @param {string} [path] @param {AbortSignal} [signal] @returns {Promise<RelayStatus>} */
  async #control(method, path, signal) {
    const headers = this.#headers({ Accept: "application/json" });
    const answer = await this.#ask(this.#url(path), { method, headers, signal });
    return answer.json().catch((error) => Promise.reject(broken(error)));
  }

  /** A successful answer, or an error. @param {string | URL} url @param {RequestInit} init */
  async #ask(url, init, resuming = true) {
    const { credentials } = this.#options;
    const { signal } = "signal" in init ? init : this.#connection;
    // With a cache, browsers let readers of one url wait for each other: the first one's answer might do for all.
    const asked = fetch(url, { cache: "no-store", credentials, ...init, signal });
    const answer = await asked.catch((error) => Promise.reject(broken(error)));
    if (!answer.ok) throw await refusal(answer, resuming);
    return answer;
  }

  #url(path = "") {
    return `${this.#base}/v1/streams/${encodeURIComponent(this.id)}${path}`;
  }

  /** What the caller says wins. @param {Record<string, string>} own */
  #headers(own) {
    const { headers, overflow, flush } = this.#options;
    const all = new Headers(own);
    if (overflow) all.set("Relay-Overflow", overflow);
    if (flush !== undefined) all.set("Relay-Flush", typeof flush === "number" ? `${flush}ms` : flush);
    new Headers(headers).forEach((value, name) => all.set(name, value));
    return all;
  }

  /** @template T @param {() => Promise<T>} attempt @returns {Promise<T>} */
  async #patiently(attempt) {
    for (;;) {
      try {
        return await attempt();
      } catch (error) {
        await this.#pause(error);
      }
    }
  }

  /** Until it is time for another try. Throws what ends the stream. @param {unknown} error */
  async #pause(error) {
    const meant = this.#connection.signal.reason === CUT && error instanceof Dropped;
    this.#connection.abort();
    if (this.#end === undefined && error instanceof Dropped && !meant && (offline() || ++this.#tries <= TRIES)) {
      const jitter = Math.random() * Math.min(BACKOFF.longest, BACKOFF.first * 2 ** Math.max(this.#tries - 1, 0));
      const delay = (error.retryAfter ?? 0) * 1000 + jitter;
      this.#change({ type: "dropped", attempt: this.#tries, delay, error });
      await this.#rest(delay);
    } else if (!meant) {
      this.#stop(error instanceof RelayError && CANCELLED.has(error.code) ? "cancelled" : "failed", error);
    }
    do {
      while (this.#end === undefined && this.#cut) await this.#rest();
      // A relay on this very machine is there without a network as well.
      if (this.#end === undefined && offline()) await this.#rest(BACKOFF.longest);
    } while (this.#end === undefined && this.#cut);
    if (this.#end !== undefined) throw this.#end;
    this.#connection = new AbortController();
    this.#change({ type: "connecting" });
  }

  /** So many milliseconds, or until the network is back; or until it is woken. @param {number} [delay] */
  async #rest(delay) {
    /** @type {Promise<void>} */
    const woken = new Promise((resolve) => (this.#wake = resolve));
    const timer = delay === undefined ? undefined : setTimeout(this.#wake, delay);
    globalThis.addEventListener?.("online", this.#wake, { once: true });
    await woken;
    clearTimeout(timer);
    globalThis.removeEventListener?.("online", this.#wake);
  }

  /** No more is wanted, at once. @param {"failed" | "cancelled" | "left"} type @param {unknown} error */
  #stop(type, error) {
    this.#end ??= error;
    this.#change({ type, error });
    this.#connection.abort();
    this.#wake();
  }

  /** @param {RelayChange} change */
  #change(change) {
    if (FINAL.has(this.state)) return;
    if (change.type !== "gap") this.state = change.type;
    if (FINAL.has(this.state)) this.#options.signal?.removeEventListener("abort", this.#abort);
    this.#options.onChange?.(change);
  }
}

export const { start, read } = RelayStream;

async function* nothing() {}

/** Types of relay.js, whose head says what it is for and what it holds to. */

/** One event, as its provider sent it. */
export interface RelayEvent {
  /** The id of its own, `{stream}-{seq}`, or null. */
  readonly id: string | null;
  /** Its number in the stream, from 1; null for what the relay or a gateway says by itself, such as an error. */
  readonly seq: number | null;
  /** Its name; "message" where it has none. */
  readonly event: string;
  readonly data: string;
}

/** What happened to the connection. The type of the last one, `gap` aside, is the stream's state. */
export type RelayChange =
  | { readonly type: "connecting" | "open" | "done" }
  /** The relay holds the request and nothing came yet (asked for by `placeholder`). */
  | { readonly type: "waiting" }
  /** Tried again for the `attempt`th time after `delay` milliseconds. null: after `resume()`, where `attempt` is 0, or
   *  when the browser's EventSource finds it time. */
  | { readonly type: "dropped"; readonly attempt: number; readonly delay: number | null; readonly error: unknown }
  /** The relay has dropped these events for a slow reader, who asked for that (overflow "drop"). */
  | { readonly type: "gap"; readonly first: number; readonly last: number }
  /** Thrown by the loop as well. `left`: the reader went; null if by leaving its loop. */
  | { readonly type: "failed" | "cancelled" | "left"; readonly error: unknown };

/** What the relay says of a stream. */
export interface RelayStatus {
  readonly id: string;
  readonly state: "waiting" | "streaming" | "finished" | "failed" | "cancelled";
  /** The number of the last event. */
  readonly tail: number;
  /** That of the first one that can still be had; null if there is none. */
  readonly oldest: number | null;
  readonly error: { readonly code: string; readonly message: string } | null;
  readonly [more: string]: unknown;
}

interface Options {
  /** "eventsource" reads with the browser's own EventSource, which sends neither `headers` nor what is said by them:
   *  `overflow`, `flush`, `placeholder`. All other requests do. */
  transport?: "fetch" | "eventsource";
  /** The origin and path under which the relay's own paths are; that of the url, or of the page. */
  base?: string | URL;
  /** Sent with every request; they win over those of relay.js. */
  headers?: HeadersInit;
  credentials?: RequestCredentials;
  /** Ends the reading, not the generation: that is left to `onDisconnect`, or `cancel()`. */
  signal?: AbortSignal;
  /** What the relay does when this reader is slow: "merge" unless told. */
  overflow?: "merge" | "disconnect" | "pause" | "drop";
  /** Let events gather for so long, as "20ms" or milliseconds. */
  flush?: string | number;
  /** EventSource: the named events to listen for; EVENTS unless told. */
  events?: Iterable<string>;
  /** fetch: milliseconds without a byte after which a connection counts as dead; 0: never. SILENCE unless told. */
  silence?: number;
  onChange?: (change: RelayChange) => void;
}

export interface StartOptions extends Options {
  /** A string as it is, anything else as JSON. It has to ask for a stream. */
  body?: unknown;
  /** What becomes of the generation without readers: "continue", "cancel", "cancel-after=SECONDS". */
  onDisconnect?: string;
  /** Be told (`waiting`) before the first event. */
  placeholder?: boolean | string;
}

export interface ReadOptions extends Options {
  /** The number of the event behind which to begin; 0: at the start; "latest": with what is still to come. */
  after?: number | "latest";
}

export declare const BACKOFF: Readonly<{ first: number; longest: number }>;
export declare const TRIES: number;
export declare const LONGEST_RETRY_AFTER: number;
export declare const SILENCE: number;
export declare const LONGEST_EVENT: number;
export declare const EVENTS_AHEAD: number;
export declare const EVENTS: readonly string[];

/** Sends a request for a stream and resolves when its answer has begun (fetch) or it is under way (EventSource). */
export declare function start(url: string | URL, options?: StartOptions): Promise<RelayStream>;

/** Reads a stream whose id is known, from any place in it. */
export declare function read(id: string, options?: ReadOptions): Promise<RelayStream>;

/** One reader of one stream. Iterate it once. */
export declare class RelayStream implements AsyncIterable<RelayEvent> {
  private constructor();
  readonly id: string;
  /** The number of the last event that was seen; 0 before the first. */
  readonly seq: number;
  readonly state: Exclude<RelayChange["type"], "gap">;
  [Symbol.asyncIterator](): AsyncGenerator<RelayEvent, void, undefined>;
  /** Stops the generation, for all its readers. Resolves with its final state; one that had ended stays as it was. */
  cancel(): Promise<RelayStatus>;
  /** What the relay knows of the stream, whatever happens to this connection. */
  status(): Promise<RelayStatus>;
  /** Drops the connection on purpose, until `resume`. For demonstrations and tests. */
  cut(): void;
  /** Goes on after `cut`; and tries at once where the next try was still to come. */
  resume(): void;
}

/** What ended a stream before it was whole. */
export declare class RelayError extends Error {
  constructor(
    status: number,
    code: string,
    message: string,
    more?: { body?: any; retryAfter?: number | null; cause?: unknown },
  );
  /** Of the answer that said it; 0 where none did. */
  readonly status: number;
  /** The relay's, such as "cancelled" or "orphaned"; or of relay.js: unreachable, hole, not_a_stream, not_resumable,
   *  event_too_long. */
  readonly code: string;
  /** The answer's JSON. */
  readonly body: any;
  /** Seconds. */
  readonly retryAfter: number | null;
}

export interface ParsedEvent {
  readonly event: string;
  readonly data: string;
  /** The id in this event itself. */
  readonly id: string | null;
  /** The last id so far, as an EventSource would send it. */
  readonly lastEventId: string;
}

/** The event stream format (WHATWG HTML, 9.2.6): bytes in, in pieces of any size; whole events out. */
export declare class EventParser {
  constructor(options?: { lastEventId?: string; longest?: number });
  /** The events that these bytes complete. Throws a RelayError when one grows too long. */
  push(bytes: Uint8Array): ParsedEvent[];
}

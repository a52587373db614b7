// relay.js in Node, run by test_relay_js.py: `node reader.mjs SCENARIO JSON` prints one JSON document of what came of it.
// A line on standard output before it, and one on standard input, are how some scenarios keep step with their test.
import { once } from "node:events";
import http from "node:http";
import { EventParser, read, start } from "../../relay/web/relay.js";

const [scenario, told] = process.argv.slice(2);
let { url = "http://relay.test/v1/chat/completions", base = new URL(url).origin, simulate = "", options = {}, ...more } =
  JSON.parse(told);
const BODIES = {
  "/v1/responses": { input: "hello" },
  "/v1/completions": { prompt: "hello" },
  "/v1/messages": { max_tokens: 100 },
};

// Jitter is no part of what is tested: what is tried again is tried at once, or after the server's own time.
Math.random = () => 0;
const delays = [];

// Such a browser knows of no network. It waits for one, but not for ever: that wait, too, is over at once.
if (more.offline) {
  Object.defineProperty(globalThis, "navigator", { value: { onLine: false } });
  const { setTimeout } = globalThis;
  // Only that one: node's own client has timers too, and gives them more to take along.
  globalThis.setTimeout = (wake, delay, ...rest) => setTimeout(wake, delay === 10_000 ? 0 : delay, ...rest);
}

function open(change = () => {}) {
  const body = { model: "sim-1", stream: true, messages: [], ...BODIES[new URL(url).pathname] };
  const heard = newHeard();
  const onChange = (one) => {
    heard.changes.push(one.type);
    if (one.type === "dropped" && one.error?.retryAfter) delays.push(one.delay);
    if (one.type === "gap") heard.gaps.push([one.first, one.last]);
    return change(one);
  };
  return [heard, start(url, { body, headers: { Simulate: simulate }, ...options, onChange })];
}

const newHeard = () => ({ text: "", numbers: [], gaps: [], unnumbered: [], changes: [] });

function textOf(data) {
  if (!data.startsWith("{")) return "";
  const said = JSON.parse(data);
  if (said.type?.startsWith("response.")) return said.type === "response.output_text.delta" ? said.delta : "";
  if (said.type) return said.delta?.text ?? "";
  return said.choices?.[0]?.delta?.content ?? said.choices?.[0]?.text ?? "";
}

async function hear(heard, opening, each = () => {}) {
  try {
    const stream = (heard.stream = await opening);
    heard.id = stream.id;
    for await (const event of stream) {
      if (event.seq === null) heard.unnumbered.push(event.data);
      else heard.numbers.push(event.seq);
      heard.text += textOf(event.data);
      await each(event, stream);
    }
    heard.whole = true;
  } catch (error) {
    heard.error = { name: error.name, status: error.status, code: error.code, message: error.message };
  }
  heard.state = heard.stream?.state;
  delete heard.stream;
  return heard;
}

async function step(said) {
  console.log(said);
  process.stdin.resume();
  await once(process.stdin, "data");
  process.stdin.pause();
}

const scenarios = {
  all: () => hear(...open()),

  async slow() {
    return hear(...open(), async ({ seq }) => seq === more.at && (await step("waiting")));
  },

  async cut() {
    return hear(...open(), async ({ seq }, stream) => {
      if (seq !== more.at) return;
      stream.cut();
      await step("cut");
      stream.resume();
    });
  },

  async cancel() {
    const [heard, opening] = open();
    await hear(heard, opening, async ({ seq }, stream) => {
      if (seq === more.at) heard.status = await stream.cancel();
    });
    heard.again = await (await fetch(`${base}/v1/streams/${heard.id}/cancel`, { method: "POST" })).json();
    return heard;
  },

  async elsewhere() {
    return hear(...open(), async ({ seq }, { id }) => {
      if (seq === more.at) await (await read(id, { base })).cancel();
    });
  },

  async late() {
    const late = [];
    const first = await hear(...open(), ({ seq }, { id }) => {
      if (seq !== more.at) return;
      for (const after of [0, 1, seq, "latest"]) late.push([after, hear(newHeard(), read(id, { base, after }))]);
    });
    for (const one of late) one[1] = await one[1];
    const after = first.numbers.length;
    return { first, late, end: await hear(newHeard(), read(first.id, { base, after })) };
  },

  async refused() {
    const heard = {};
    for (const [name, id, after] of more.asked) heard[name] = await hear(newHeard(), read(id, { base, after }));
    return heard;
  },

  // The provider has one connection; the second stream is told to come again, and does when the first has gone.
  async full() {
    const [first, opening] = open();
    const holder = await opening;
    const [second, waiting] = open(({ type }) => type === "dropped" && holder.cancel());
    await hear(second, waiting, (_, stream) => stream.cancel());
    return { first, second, delays };
  },

  // A relay that says what no real one does: to each request the next of its answers, cut where it is not whole.
  async scripted() {
    const asked = [];
    const server = http.createServer((request, response) => {
      const { method, url: path, headers } = request;
      asked.push({ method, path, headers });
      const { status = 200, fields = {}, body = "", whole = false, hangs = false } = more.answers[asked.length - 1] ?? more.last;
      response.writeHead(status, { "Content-Type": "text/event-stream", "Relay-Stream-Id": "s", ...fields });
      response.write(body || ":\n", () => hangs || (whole ? response.end() : response.socket.destroy()));
    });
    await once(server.listen(0, "127.0.0.1"), "listening");
    base = `http://127.0.0.1:${server.address().port}`;
    url = `${base}/v1/chat/completions`;
    const heard = await hear(...open());
    server.close();
    server.closeAllConnections();
    return { ...heard, asked };
  },

  parser() {
    const bytes = Buffer.from(more.bytes, "base64");
    const parse = (...pieces) => {
      const parser = new EventParser();
      return pieces.flatMap((piece) => parser.push(piece));
    };
    const whole = parse(bytes);
    const same = (events) => JSON.stringify(events) === JSON.stringify(whole);
    const cuts = Array.from({ length: bytes.length + 1 }, (_, cut) => cut);
    const wrong = cuts.filter((cut) => !same(parse(bytes.subarray(0, cut), bytes.subarray(cut))));
    return { whole, wrong, single: same(parse(...Array.from(bytes, (byte) => Uint8Array.of(byte)))) };
  },

  long() {
    const parser = new EventParser({ longest: 1000 });
    const piece = Buffer.from(more.piece);
    let taken = 0;
    try {
      for (; taken < 1_000_000; taken += piece.length) parser.push(piece);
    } catch ({ code }) {
      return { taken, code };
    }
    return { taken };
  },
};

console.log(JSON.stringify(await scenarios[scenario]()));

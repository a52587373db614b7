// Node's own HTTP/2 client, run by test_node.py: session.mjs URL CA SCENARIO SIMULATE prints one JSON document of what
// it made of it. A line on standard input is what some scenarios wait for.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import http2 from "node:http2";

const [url, ca, scenario, path, simulate] = process.argv.slice(2);
const session = http2.connect(url, { ca: readFileSync(ca) });
const said = { goaway: [], streams: [], errors: [] };
session.on("error", (error) => said.errors.push(error.code));
session.on("goaway", (code, last) => said.goaway.push([code, last]));

function open(fields = {}) {
  const heard = { status: 0, events: 0, text: "", error: null };
  const stream = session.request({ ":path": path, simulate, ...fields });
  stream.setEncoding("utf8");
  stream.on("response", (head) => (heard.status = head[":status"]));
  stream.on("data", (text) => {
    heard.events += text.split("event: tick\n").length - 1;
    heard.text = (heard.text + text).slice(-2000);
    if (heard.events) stream.emit("begun");
  });
  stream.on("error", (error) => (heard.error = error.code));
  heard.done = new Promise((resolve) => stream.on("close", () => resolve((heard.code = stream.rstCode))));
  heard.begun = new Promise((resolve) => stream.once("begun", resolve));
  said.streams.push(heard);
  return [stream, heard];
}

const scenarios = {
  async stream() {
    await open()[1].done;
  },
  async many() {
    const all = Array.from({ length: 50 }, () => open()[1]);
    await Promise.all(all.map((one) => one.begun));
    said.atOnce = all.filter((one) => one.code === undefined).length;
    await Promise.all(all.map((one) => one.done));
  },
  async post() {
    const stream = session.request({ ":method": "POST", ":path": path, simulate });
    const body = Buffer.alloc(5 * 1024 * 1024, "x");
    stream.end(body);
    stream.setEncoding("utf8");
    said.text = (await stream.toArray()).join("");
  },
  async cancel() {
    const [stream, heard] = open();
    const [, other] = open({ simulate: "events=20; interval=10ms" });
    await heard.begun;
    stream.close(http2.constants.NGHTTP2_CANCEL);
    await Promise.all([heard.done, other.done]);
  },
  async drain() {
    const all = Array.from({ length: 20 }, () => open()[1]);
    await Promise.all(all.map((one) => one.begun));
    console.log("begun");
    await once(session, "goaway");
    try {
      const [, late] = open();
      await late.done;
      said.late = late.error;
    } catch (error) {
      said.late = error.code;
    }
    said.streams = said.streams.slice(0, 20);
    await Promise.all(all.map((one) => one.done));
    if (!session.closed) await once(session, "close");
  },
};

await scenarios[scenario]();
said.settings = session.remoteSettings;
console.log(JSON.stringify(said));
session.destroy();

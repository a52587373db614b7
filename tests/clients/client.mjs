// The official Node clients, run by test_node.py: client.mjs URL SCENARIO SIMULATE prints one JSON document of what the
// client made of it, `error` among it where it threw.
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const [url, scenario, simulate] = process.argv.slice(2);
const options = { apiKey: "sk-caller", maxRetries: 0, timeout: 20_000, defaultHeaders: { Simulate: simulate } };
const openai = new OpenAI({ ...options, baseURL: `${url}/v1` });
const anthropic = new Anthropic({ ...options, baseURL: url });
const messages = [{ role: "user", content: "hello" }];
const asked = { model: "sim-1", messages };
const heard = { text: "", events: 0 };

function hear(text) {
  heard.events += 1;
  heard.text += text ?? "";
}

const scenarios = {
  async chat() {
    for await (const chunk of await openai.chat.completions.create({ ...asked, stream: true })) {
      hear(chunk.choices[0]?.delta.content);
    }
  },
  async completions() {
    const stream = await openai.completions.create({ model: "sim-1", prompt: "hello", stream: true });
    for await (const chunk of stream) hear(chunk.choices[0]?.text);
  },
  async responses() {
    const stream = await openai.responses.create({ model: "sim-1", input: "hello", stream: true });
    for await (const event of stream) {
      hear(event.type === "response.output_text.delta" ? event.delta : "");
      heard.last = event.type;
    }
  },
  async messages() {
    const stream = await anthropic.messages.create({ ...asked, max_tokens: 64, stream: true });
    for await (const event of stream) {
      hear(event.type === "content_block_delta" ? event.delta.text : "");
      heard.last = event.type;
    }
  },
  async "chat json"() {
    const whole = await openai.chat.completions.create(asked).withResponse();
    hear(whole.data.choices[0].message.content);
    heard.tools = whole.data.choices[0].message.tool_calls?.map((call) => call.function);
    heard.headers = Object.fromEntries(whole.response.headers);
  },
  async "messages json"() {
    const whole = await anthropic.messages.create({ ...asked, max_tokens: 64 });
    for (const block of whole.content) hear(block.text);
    heard.tools = whole.content.filter((block) => block.type === "tool_use").map((block) => block.input);
  },
  // The helpers that add deltas up by themselves.
  async "chat helper"() {
    const stream = openai.chat.completions.stream({ ...asked, stream_options: { include_usage: true } });
    const whole = await stream.finalChatCompletion();
    hear(whole.choices[0].message.content);
    heard.tools = whole.choices[0].message.tool_calls?.map(({ function: { name, arguments: said } }) => {
      return { name, arguments: said };
    });
    heard.usage = whole.usage;
  },
  async "messages helper"() {
    const whole = await anthropic.messages.stream({ ...asked, max_tokens: 64 }).finalMessage();
    for (const block of whole.content) hear(block.text);
    heard.tools = whole.content.filter((block) => block.type === "tool_use").map((block) => block.input);
  },
  // Readers that leave. The process lives on until its input ends, so that nothing but the client closes a connection.
  async "chat break"() {
    for await (const chunk of await openai.chat.completions.create({ ...asked, stream: true })) {
      hear(chunk.choices[0]?.delta.content);
      if (heard.events === 3) break;
    }
    await lingering();
  },
  async "messages break"() {
    for await (const _ of await anthropic.messages.create({ ...asked, max_tokens: 64, stream: true })) {
      hear("");
      if (heard.events === 3) break;
    }
    await lingering();
  },
  async "chat abort"() {
    const leaving = new AbortController();
    const answer = openai.chat.completions.create({ ...asked, stream: true }, { signal: leaving.signal });
    // The test says when: the provider has the request by then, and has not begun to answer.
    await lingering();
    leaving.abort();
    await answer;
  },
};

async function lingering() {
  console.error("lingering");
  for await (const _ of process.stdin);
}

try {
  await scenarios[scenario]();
} catch (error) {
  heard.error = { name: error.constructor.name, status: error.status, message: error.message, code: error.code };
}
console.log(JSON.stringify(heard));

// Node's clients reading streams that can be resumed, run by test_resumable_*.py: `node resumable.mjs SCENARIO JSON`
// prints one JSON document of what the client made of it, `error` among it where it threw.
const [scenario, told] = process.argv.slice(2);
const { url, simulate, headers = {}, at = 0, retries = 0, model = "sim-1", ...more } = JSON.parse(told);
const asked = { Simulate: simulate, ...headers };
const heard = { text: "", events: 0, numbers: [] };
const messages = [{ role: "user", content: "hello" }];
const body = { model, stream: true, messages };

async function cancel(id) {
  await fetch(`${url}/v1/streams/${id}/cancel`, { method: "POST" });
}

// Each event; and where the test says so, the stream is cancelled by its id behind event number `at`.
async function hear(text, id) {
  heard.events += 1;
  heard.text += text ?? "";
  if (heard.events === at && more.cancel) await cancel(id ?? heard.id);
}

async function openai() {
  const { default: OpenAI } = await import("openai");
  return new OpenAI({ apiKey: "sk", maxRetries: retries, timeout: 20_000, defaultHeaders: asked, baseURL: `${url}/v1` });
}

async function responses(stream, each = () => false) {
  for await (const event of stream) {
    heard.response ??= event.response?.id;
    heard.numbers.push(event.sequence_number);
    heard.last = event.type;
    await hear(event.type === "response.output_text.delta" ? event.delta : "");
    if (await each(event)) return;
  }
}

function failed(error) {
  const { status, code, message } = error;
  return { name: error.constructor.name, status, code, message, cause: error.cause?.message };
}

const scenarios = {
  async "openai chat"() {
    const { data, response } = await (await openai()).chat.completions.create(body).withResponse();
    heard.id = response.headers.get("relay-stream-id");
    for await (const chunk of data) await hear(chunk.choices[0]?.delta.content);
  },

  async "openai completions"() {
    const asking = (await openai()).completions.create({ model, prompt: "hello", stream: true });
    const { data, response } = await asking.withResponse();
    heard.id = response.headers.get("relay-stream-id");
    for await (const chunk of data) await hear(chunk.choices[0]?.text);
  },

  async "openai responses"() {
    const asking = (await openai()).responses.create({ model, input: "hello", stream: true });
    const { data, response } = await asking.withResponse();
    heard.id = response.headers.get("relay-stream-id");
    await responses(data);
  },

  // Breaks off behind event number `at`, and asks for the rest.
  async "openai resume"() {
    const client = await openai();
    await responses(
      await client.responses.create({ model, input: "hello", stream: true }),
      () => heard.events === at,
    );
    heard.before = heard.numbers.splice(0);
    await responses(
      await client.responses.retrieve(heard.response, { stream: true, starting_after: heard.before.at(-1) }),
    );
  },

  async "openai end"() {
    const client = await openai();
    await responses(await client.responses.create({ model, input: "hello", stream: true }));
    heard.before = heard.numbers.splice(0);
    const rest = client.responses.retrieve(heard.response, { stream: true, starting_after: heard.before.at(-1) });
    heard.status = (await rest.asResponse()).status;
    await responses(await rest);
  },

  async "openai cancel"() {
    const client = await openai();
    await responses(await client.responses.create({ model, input: "hello", stream: true }), async () => {
      if (heard.events === at) heard.status = (await client.responses.cancel(heard.response)).status;
    });
  },

  async "anthropic messages"() {
    const { default: Anthropic } = await import("@anthropic-ai/sdk");
    const client = new Anthropic({ apiKey: "sk", maxRetries: retries, defaultHeaders: asked, baseURL: url });
    const { data, response } = await client.messages.create({ ...body, max_tokens: 64 }).withResponse();
    heard.id = response.headers.get("relay-stream-id");
    for await (const event of data) {
      heard.last = event.type;
      await hear(event.type === "content_block_delta" ? event.delta.text : "");
    }
  },

  async "ai chat"() {
    const { streamText } = await import("ai");
    const { createOpenAICompatible } = await import("@ai-sdk/openai-compatible");
    const provider = createOpenAICompatible({
      name: "relay",
      apiKey: "sk",
      baseURL: `${url}/v1`,
      headers: asked,
      async fetch(...request) {
        const response = await fetch(...request);
        heard.id = response.headers.get("relay-stream-id");
        return response;
      },
    });
    heard.parts = {};
    const result = streamText({ model: provider.chatModel(model), prompt: "hello", maxRetries: retries, onError() {} });
    for await (const part of result.fullStream) {
      heard.parts[part.type] = (heard.parts[part.type] ?? 0) + 1;
      if (part.type === "error") heard.told = failed(part.error);
      if (part.type === "finish") heard.finish = part.finishReason;
      if (part.type === "text-delta") await hear(part.text);
    }
    heard.whole = await result.text;
  },

  // Its stream, as its documentation has it; connected again where it was, by the id that it has seen last.
  async parser() {
    const { EventSourceParserStream } = await import("eventsource-parser/stream");
    Object.assign(heard, { comments: 0, dropped: 0, statuses: [] });
    const json = { "Content-Type": "application/json", ...asked };
    let asking = () => fetch(`${url}/v1/chat/completions`, { method: "POST", headers: json, body: JSON.stringify(body) });
    for (;;) {
      const response = await asking();
      heard.statuses.push(response.status);
      if (response.status === 204) break;
      if (!response.ok) throw new Error(await response.text());
      heard.id ??= response.headers.get("relay-stream-id");
      const events = response.body
        .pipeThrough(new TextDecoderStream())
        .pipeThrough(new EventSourceParserStream({ onComment: () => (heard.comments += 1), onError: "terminate" }));
      try {
        for await (const { id, data } of events) {
          if (id) {
            heard.lastEventId = id;
            heard.numbers.push(Number(id.slice(id.lastIndexOf("-") + 1)));
          }
          if (data !== "[DONE]") await hear(JSON.parse(data).choices?.[0].delta.content);
          if (data.startsWith('{"error"')) heard.told = JSON.parse(data).error;
        }
        break;
      } catch (error) {
        heard.dropped += 1;
        if (!more.again) throw error;
      }
      const seen = heard.lastEventId ? { "Last-Event-ID": heard.lastEventId } : {};
      asking = () => fetch(`${url}/v1/streams/${heard.id}`, { headers: seen });
    }
  },
};

try {
  await scenarios[scenario]();
} catch (error) {
  heard.error = failed(error);
}
console.log(JSON.stringify(heard));

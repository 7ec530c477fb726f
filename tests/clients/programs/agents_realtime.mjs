// @openai/agents-realtime: agents_realtime.mjs URL TEXT PCM ... -> what its session's history holds when each sound was
// answered, then the text, as one JSON object. Each sound is sent when the one before has its answer.
import fs from "node:fs";
import { OpenAIRealtimeWebSocket, RealtimeAgent, RealtimeSession } from "@openai/agents-realtime";

const [url, text, ...sounds] = process.argv.slice(2);
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const transport = new OpenAIRealtimeWebSocket({ url });
const session = new RealtimeSession(new RealtimeAgent({ name: "Auricle", instructions: "" }), {
  transport,
  model: "auricle-demo",
  tracingDisabled: true,
  config: {
    outputModalities: ["text"],
    audio: { input: { turnDetection: { type: "server_vad" }, transcription: { model: "whisper-1" } } },
  },
});
const told = { errors: [], turns: [] };
session.on("error", (error) => told.errors.push(error));
transport.on("turn_done", (event) => told.turns.push(event.response));
const until = async (holds) => {
  for (let waited = 0; !holds(); waited += 20) {
    if (waited > 30000) throw new Error(`waited in vain: ${JSON.stringify({ ...told, history: session.history })}`);
    await sleep(20);
  }
};
// The client asks for an item again when its transcript is there, and knows it from then on.
const known = () => session.history.filter((item) => item.content.some((each) => each.transcript ?? each.text)).length;

await session.connect({ apiKey: "none" });
for (const [at, path] of sounds.entries()) {
  const sound = fs.readFileSync(path);
  for (let from = 0; from < sound.length; from += 4800) {
    session.sendAudio(sound.buffer.slice(sound.byteOffset + from, sound.byteOffset + from + 4800));
    await sleep(5);
  }
  await until(() => told.turns.length > at && known() >= 2 * (at + 1));
}
session.sendMessage(text);
await until(() => told.turns.length > sounds.length);
session.interrupt(); // with nothing to interrupt
await sleep(300);
told.history = session.history.map((item) => [item.role, item.status, item.content[0].transcript ?? item.content[0].text]);
session.close();
console.log(JSON.stringify(told));
process.exit(0);

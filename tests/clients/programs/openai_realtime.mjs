// openai (npm), Realtime: openai_realtime.mjs BASE PCM N -> a JSON array of events, to the N-th transcript.
import fs from "node:fs";
import OpenAI from "openai";
import { OpenAIRealtimeWS } from "openai/realtime/ws";

const [base, pcm, n] = process.argv.slice(2);
const sound = fs.readFileSync(pcm);
const connection = new OpenAIRealtimeWS({ intent: "transcription" }, new OpenAI({ baseURL: base, apiKey: "none" }));
const events = [];
let missing = Number(n);

connection.socket.on("open", () => {
  const input = {
    format: { type: "audio/pcm", rate: 24000 },
    transcription: { model: "whisper-1" },
    turn_detection: { type: "server_vad" },
  };
  connection.send({ type: "session.update", session: { type: "transcription", audio: { input } } });
  for (let at = 0; at < sound.length; at += 4800)
    connection.send({ type: "input_audio_buffer.append", audio: sound.subarray(at, at + 4800).toString("base64") });
});
connection.on("event", (event) => {
  events.push(event);
  if (event.type === "conversation.item.input_audio_transcription.completed" && --missing === 0) connection.close();
});
connection.on("error", (error) => {
  console.error(error.message);
  process.exit(1);
});
connection.socket.on("close", () => console.log(JSON.stringify(events)));

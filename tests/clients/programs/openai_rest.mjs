// openai (npm) over HTTP: openai_rest.mjs BASE WAV -> one JSON object of what it was given back.
import fs from "node:fs";
import OpenAI from "openai";

const [base, wav] = process.argv.slice(2);
const client = new OpenAI({ baseURL: base, apiKey: "none", maxRetries: 0 });
const file = () => fs.createReadStream(wav);
const ask = (more) => client.audio.transcriptions.create({ file: file(), model: "whisper-1", ...more });
const told = { version: JSON.parse(fs.readFileSync("node_modules/openai/package.json", "utf8")).version };

const [model] = (await client.models.list()).data;
told.model = model.id;
told.retrieved = (await client.models.retrieve(model.id)).object;

told.json = await ask({});
for (const format of ["text", "srt", "vtt"]) told[format] = await ask({ response_format: format });
told.verbose = await ask({ response_format: "verbose_json", timestamp_granularities: ["segment"] });

told.stream = [];
for await (const event of await ask({ stream: true, model: "gpt-4o-transcribe" })) told.stream.push(event);

told.translation = await client.audio.translations.create({ file: file(), model: "whisper-1" }).then(
  (answer) => answer.text,
  (error) => error.code,
);

const sound = { type: "input_audio", input_audio: { data: fs.readFileSync(wav).toString("base64"), format: "wav" } };
const question = { model: "gpt-audio", messages: [{ role: "user", content: [sound, { type: "text", text: "asr" }] }] };
told.chat = await client.chat.completions.create(question);
told.chunks = [];
const chunks = await client.chat.completions.create({ ...question, stream: true, stream_options: { include_usage: true } });
for await (const chunk of chunks) told.chunks.push(chunk);

console.log(JSON.stringify(told));

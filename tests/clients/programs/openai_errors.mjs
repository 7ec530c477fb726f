// openai (npm), refused: openai_errors.mjs WAV '{"NAME": ["BASE", {OPTIONS OF THE CLIENT}, {FIELDS}], ...}'
// -> one JSON object of the exceptions.
import fs from "node:fs";
import OpenAI from "openai";

const [wav, cases] = process.argv.slice(2);
const told = {};
for (const [name, [base, options, fields]] of Object.entries(JSON.parse(cases))) {
  const client = new OpenAI({ baseURL: base, apiKey: "none", maxRetries: 0, ...options });
  const file = "text" in fields ? new File([fields.text], "a.wav") : fs.createReadStream(wav);
  delete fields.text;
  try {
    told[name] = await client.audio.transcriptions.create({ file, model: "whisper-1", ...fields });
  } catch (error) {
    const { status, code, param, type, requestID } = error;
    told[name] = { class: error.constructor.name, status, code, param, type, request: Boolean(requestID) };
  }
}
console.log(JSON.stringify(told));

// A sound and questions about it -> answers as they are decoded; earlier questions and answers go with the next one.

import { events, request } from './api.js';
import { play, takeFiles, tooLarge } from './files.js';

const CHUNK = 0x8000;
const $ = id => document.getElementById(id);

export class AskPanel {
  // bundle(): what the server told of it
  constructor(bundle) {
    this.bundle = bundle;
    takeFiles($('ask'), file => this.take(file));
    $('question-form').addEventListener('submit', event => {
      event.preventDefault();
      this.ask($('question').value.trim());
    });
  }

  stop() {
    this.asking?.abort();
  }

  async take(file) {
    this.stop();
    const refused = tooLarge(file, this.bundle().max_upload_bytes);
    if (refused) return this.say(refused);
    this.sound = { type: 'input_audio', input_audio: { data: base64(await file.arrayBuffer()), format: 'wav' } };
    this.turns = [];
    $('answers').replaceChildren();
    $('clip-name').textContent = file.name;
    $('dialogue').hidden = false;
    this.say('');
    $('question').focus();
    const seconds = await play($('ask').querySelector('audio'), file);
    $('remember').checked = !(seconds > this.bundle().window_s);  // a longer sound is asked about alone
  }

  async ask(question) {
    if (!question || this.asking) return;
    const asking = new AbortController();
    this.asking = asking;
    add('question', question);
    const answer = add('answer', '…');
    this.say('Listening …');
    try {
      const text = await this.answer(question, answer, asking.signal);
      answer.textContent = text || '(no answer)';
      this.turns.push({ question, text });
      $('question').value = '';
      this.say('');
    } catch (error) {
      answer.remove();
      this.say(asking.signal.aborted ? 'Stopped.' : error.message);
    }
    this.asking = undefined;
    $('answers').scrollTop = $('answers').scrollHeight;
  }

  async answer(question, element, signal) {
    const body = { model: this.bundle().model, stream: true, messages: this.messages(question) };
    const headers = { 'content-type': 'application/json' };
    const answer = await request('/v1/chat/completions', { method: 'POST', headers, signal, body: JSON.stringify(body) });
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    let received = '';
    let read = 0;
    let text = '';
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      received += part.value;
      for (const { event, end } of events(received, read)) {
        read = end;
        if (event?.error) throw new Error(event.error.message);
        text += event?.choices[0]?.delta.content ?? '';
      }
      if (text) element.textContent = text;
    }
    return text;
  }

  // The sound goes with the question: models that were taught single questions answer that best.
  messages(question) {
    const turns = $('remember').checked ? this.turns : [];
    const messages = turns.flatMap(turn => [
      { role: 'user', content: [{ type: 'text', text: turn.question }] },
      { role: 'assistant', content: turn.text },
    ]);
    messages.push({ role: 'user', content: [this.sound, { type: 'text', text: question }] });
    return messages;
  }

  say(text) {
    $('ask-state').textContent = text;
  }
}

function add(kind, text) {
  const element = document.createElement('p');
  element.className = kind;
  element.textContent = text;
  $('answers').append(element);
  return element;
}

function base64(buffer) {
  const bytes = new Uint8Array(buffer);
  let text = '';
  for (let at = 0; at < bytes.length; at += CHUNK) text += String.fromCharCode(...bytes.subarray(at, at + CHUNK));
  return btoa(text);
}

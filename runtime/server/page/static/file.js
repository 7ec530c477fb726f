// A recording -> its transcript, segment by segment as it is decoded, and files of it.

import { authorization, events, problem } from './api.js';
import { clock } from './captions.js';
import { play, takeFiles, tooLarge } from './files.js';
import { save } from './subtitles.js';

const UPLOAD_SHARE = 0.1;  // of the bar
const $ = id => document.getElementById(id);

export class FilePanel {
  // bundle(): what the server told of it
  constructor(bundle) {
    this.bundle = bundle;
    this.rows = [];
    takeFiles($('file'), file => this.take(file));
    $('cancel').addEventListener('click', () => this.stop());
    $('file-save').addEventListener('click', ({ target }) => {
      if (target.dataset.format) save(this.rows, target.dataset.format, this.name.replace(/\.[^.]*$/, ''));
    });
  }

  stop() {
    this.sending?.abort();
  }

  async take(file) {
    this.stop();
    const refused = tooLarge(file, this.bundle().max_upload_bytes);
    if (refused) return this.say(refused);
    this.name = file.name;
    this.rows = [];
    $('file-name').textContent = file.name;
    $('file-log').replaceChildren();
    $('file-result').hidden = false;
    this.file = file;
    this.seconds = await play($('file').querySelector('audio'), file);
    if (this.file !== file) return;  // another was chosen meanwhile
    const form = new FormData();
    form.append('model', this.bundle().model);
    form.append('stream', 'true');
    form.append('language', $('language').value);
    for (const word of $('file-keywords').value.split(',')) if (word.trim()) form.append('keywords[]', word.trim());
    form.append('file', file, file.name);
    this.send(form);
  }

  // fetch() does not tell how much was sent
  send(form) {
    const sending = new XMLHttpRequest();
    this.sending = sending;
    this.progress(0);
    this.say('Sending …');
    this.read = 0;
    this.done = false;
    sending.open('POST', '/v1/audio/transcriptions?auricle=auricle.segments');
    for (const [name, value] of Object.entries(authorization())) sending.setRequestHeader(name, value);
    sending.upload.onprogress = ({ loaded, total }) => this.progress(UPLOAD_SHARE * loaded / total);
    sending.upload.onload = () => this.wait();
    sending.onprogress = () => this.hear(sending);
    sending.onload = () => this.end(sending);
    sending.onerror = () => this.finish('The connection broke.');
    sending.onabort = () => this.finish('Cancelled. What was heard so far can be saved.');
    sending.send(form);
  }

  wait() {
    this.say('Listening …');
    if (!this.seconds) $('progress').removeAttribute('value');
  }

  hear(sending) {
    if (sending.status !== 200) return;
    for (const { event, end } of events(sending.responseText, this.read)) {
      this.read = end;
      if (event?.type === 'auricle.segment') this.add(event);
      if (event?.type === 'transcript.text.done') this.done = true;
      if (event?.error) this.failed = event.error.message;
    }
  }

  add({ start, end, text }) {
    if (this.seconds) this.progress(UPLOAD_SHARE + (1 - UPLOAD_SHARE) * Math.min(1, end / this.seconds));
    if (!text) return;
    this.rows.push({ start, end, text });
    const line = document.createElement('p');
    const time = line.appendChild(document.createElement('time'));
    time.textContent = clock(start);
    line.append(text);
    $('file-log').append(line);
  }

  end(sending) {
    this.hear(sending);
    if (sending.status !== 200) return this.finish(problem(sending.status, sending.responseText).message);
    if (!this.done) return this.finish(this.failed ?? 'The answer ended early.');
    this.finish(this.rows.length ? 'Done.' : 'Nothing was said in it.');
  }

  finish(text) {
    this.sending = undefined;
    this.failed = undefined;
    $('progress').parentElement.hidden = true;
    this.say(text);
    this.show();
  }

  progress(share) {
    $('progress').parentElement.hidden = false;
    $('progress').value = share;
    this.show();
  }

  show() {
    for (const button of $('file-save').querySelectorAll('button')) button.disabled = !this.rows.length;
  }

  say(text) {
    $('file-state').textContent = text;
  }
}

// Live captions: the microphone -> /live -> the band and the transcript.

import { key, socket } from './api.js';
import { Band, Log } from './captions.js';
import { Microphone } from './microphone.js';
import { save } from './subtitles.js';

const WAITING_SECONDS = 2;  // of sound in the socket: more is dropped, for captions that come later are none
const LAST_WORDS_MS = 10000;
const FIRST_SOUND_MS = 3000;
const QUIET_DB = -50;
const ENDS = {
  1000: 'Stopped.',
  1006: 'The connection broke. What was said so far is below.',
  1011: 'The server ended the session.',
  1012: 'The server was stopped. What was said so far is below.',
};
const NOT_LET_IN = 'The server did not let the session begin: it may be gone, or have none free. Try again.';

const $ = id => document.getElementById(id);

export class LivePanel {
  // asked(): {prompt, keywords, vad, session}
  constructor(asked) {
    this.asked = asked;
    this.band = new Band($('band'));
    this.log = new Log($('log'));
    this.rows = [];
    this.offset = 0;  // of this session in the transcript, which may have several
    this.button = $('microphone');
    this.button.addEventListener('click', () => (this.microphone ? this.stop() : this.start()));
    $('clear').addEventListener('click', () => this.clear());
    $('live-save').addEventListener('click', ({ target }) => {
      if (target.dataset.format) save(this.rows, target.dataset.format, `captions-${stamp()}`);
    });
    addEventListener('pagehide', () => this.socket?.close());
    this.clear();
    if (!navigator.mediaDevices || !isSecureContext) this.explain();
  }

  explain() {
    for (const place of document.querySelectorAll('[data-origin]')) place.textContent = location.host;
    for (const place of document.querySelectorAll('[data-local]')) place.textContent = `http://127.0.0.1:${location.port || 80}/`;
    $('insecure').hidden = false;
    this.button.disabled = true;
  }

  async start() {
    this.button.disabled = true;
    this.say('');
    const microphone = new Microphone(block => this.send(block), () => this.lose());
    try {
      await microphone.open();
      this.microphone = microphone;
      this.connect();
      setTimeout(() => this.expectSound(microphone), FIRST_SOUND_MS);
    } catch (error) {
      microphone.close();
      this.microphone = undefined;
      this.say(error.message);
    }
    this.button.disabled = false;
    this.show();
  }

  connect() {
    Object.assign(this, { nSent: 0, nDropped: 0, sentAt: 0, lost: 0, started: false, ended: '' });
    this.reading('lost', '0 s');
    this.reading('delay', '–');
    this.socket = socket('/live');
    this.socket.addEventListener('open', () => {
      this.socket.send(JSON.stringify({ type: 'start', sample_rate: this.microphone?.rate ?? 16000, ...this.asked() }));
    });
    this.socket.addEventListener('message', ({ data }) => this.hear(JSON.parse(data)));
    this.socket.addEventListener('close', ({ code }) => this.closed(code));
    navigator.wakeLock?.request('screen').then(lock => this.microphone ? this.lock = lock : lock.release(), () => {});
  }

  send({ buffer, level }) {
    this.level(level);
    const { socket: to, microphone } = this;
    if (to?.readyState !== WebSocket.OPEN || this.ending) return;
    const n = buffer.byteLength / 2;
    if (to.bufferedAmount > WAITING_SECONDS * microphone.rate * 2) {
      this.nDropped += n;
      this.say('The connection is too slow: some of the sound is left out.');
    } else {
      if (this.nDropped) {
        to.send(JSON.stringify({ type: 'dropped', seconds: this.nDropped / microphone.rate }));
        this.listening();
      }
      this.nSent += this.nDropped + n;
      this.nDropped = 0;
      this.sentAt = performance.now();
      to.send(buffer);
    }
  }

  // A context that does not run gives no error.
  expectSound(microphone) {
    if (this.microphone !== microphone || this.ending || this.nSent + this.nDropped) return;
    this.say('No sound comes from the microphone. Some browsers need loudspeakers or headphones as well.');
  }

  hear(event) {
    this.band.show(event);
    this.log.show(event, this.offset);
    if (event.type === 'started') {
      this.started = true;
      this.listening();
    } else if (event.type === 'caption') {
      this.reading('delay', `${(this.delay(event.end_s) / 1000).toFixed(1)} s`);
      this.open = { ...event, text: event.stable };
    } else if (event.type === 'final') {
      this.keep(event);
      this.listening();
    } else if (event.type === 'lost') {
      this.lost += event.seconds;
      this.reading('lost', `${this.lost.toFixed(1)} s`);
    } else if (event.type === 'lagging') {
      this.say(`The server is busy: captions come every ${event.every_s.toFixed(1)} s.`);
    } else if (event.type === 'failed') {
      this.keepOpen();
      this.say(`A sentence was not understood: ${event.error.message}`);
    } else if (event.type === 'error') {
      this.ended ||= event.error.message;
      if (!this.started) this.socket.close();
    } else if (event.type === 'ended') {
      this.offset += event.captured_s;
    }
  }

  keep({ start_s, end_s, text }) {
    this.rows.push({ start: start_s + this.offset, end: end_s + this.offset, text });
    this.open = undefined;
    this.show();
  }

  // A sentence in the middle of which something broke: what was stable of it.
  keepOpen() {
    if (this.open?.text) this.keep(this.open);
  }

  listening() {
    if (!this.ending) this.say(matchMedia('(pointer: coarse)').matches ? 'Listening.' : 'Listening. Escape stops.');
  }

  // Milliseconds since the sample at that second was captured.
  delay(end) {
    return performance.now() - this.sentAt + (this.nSent / (this.microphone?.rate ?? 16000) - end) * 1000;
  }

  stop() {
    if (!this.microphone || this.ending) return;
    this.ending = true;
    this.microphone.close();
    this.level(-90);
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: 'stop' }));
    else this.socket.close();
    this.say('Finishing the last words …');
    this.patience = setTimeout(() => this.socket.close(), LAST_WORDS_MS);
    this.show();
  }

  lose() {
    this.ended = 'The microphone is gone: plug it in, then start again.';
    this.stop();
  }

  closed(code) {
    clearTimeout(this.patience);
    this.microphone?.close();
    this.lock?.release();
    this.keepOpen();
    this.log.endLine();
    this.offset = Math.max(this.offset, this.rows.at(-1)?.end ?? 0);
    this.microphone = this.ending = undefined;
    this.level(-90);
    this.say(this.ended || (this.started ? ENDS[code] : NOT_LET_IN) || `The connection was closed (${code}).`);
    this.show();
  }

  clear() {
    this.band.clear();
    this.log.clear();
    this.rows = [];
    if (!this.microphone) this.offset = 0;
    this.show();
  }

  level(db) {
    const element = $('level');
    const shown = Math.max(-60, Math.min(0, db));
    element.firstElementChild.style.setProperty('--level', ((shown + 60) / 60).toFixed(2));
    element.setAttribute('aria-valuenow', Math.round(shown));
    element.setAttribute('aria-valuetext', shown < QUIET_DB ? 'silent' : `${Math.round(shown)} decibels`);
  }

  say(text) {
    if ($('live-state').textContent !== text) $('live-state').textContent = text;
  }

  reading(id, text) {
    $(id).textContent = text;
  }

  show() {
    this.button.textContent = this.ending ? 'Stopping …' : this.microphone ? 'Stop microphone' : 'Start microphone';
    this.button.setAttribute('aria-pressed', String(Boolean(this.microphone)));
    for (const button of $('live-save').querySelectorAll('button')) button.disabled = !this.rows.length;
  }
}

export function overlayAddress(session) {
  const address = new URL('/?overlay', location.href);
  if (session) address.search = `?overlay&session=${encodeURIComponent(session)}`;
  if (key()) address.hash = `key=${encodeURIComponent(key())}`;
  return address.href;
}

function stamp() {
  const now = new Date();
  const two = value => String(value).padStart(2, '0');
  return `${now.getFullYear()}-${two(now.getMonth() + 1)}-${two(now.getDate())}-${two(now.getHours())}${two(now.getMinutes())}`;
}

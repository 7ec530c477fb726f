// The overlay: captions of a session that somebody else feeds, on nothing. ?session=NAME, ?size=PIXELS.

import { socket } from './api.js';
import { Band, Log } from './captions.js';

const HIDE_SECONDS = 6;
const LINES = 20;
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 10000;

const asked = new URLSearchParams(location.search);
const size = Number(asked.get('size'));
if (size >= 8 && size <= 400) document.documentElement.style.setProperty('--size', `${size}px`);

const band = new Band(document.getElementById('band'), HIDE_SECONDS);
const log = new Log(document.getElementById('log'), LINES);
const problem = document.getElementById('problem');
let wait = FIRST_WAIT_MS;
let opened = false;  // once: after that nothing but captions is shown, for it may be on air

band.clear();
connect();

function connect() {
  const session = asked.get('session');
  let view;
  try {
    view = socket(session ? `/live/view?session=${encodeURIComponent(session)}` : '/live/view');
  } catch (error) {
    problem.textContent = error.message;
    return;
  }
  view.addEventListener('open', () => {
    opened = true;
    wait = FIRST_WAIT_MS;
    problem.textContent = '';
  });
  view.addEventListener('message', ({ data }) => {
    const event = JSON.parse(data);
    band.show(event);
    log.show(event);
  });
  view.addEventListener('close', () => {
    if (!opened && wait >= LONGEST_WAIT_MS) problem.textContent = 'The server is not there, or asks for its key: add #key=KEY.';
    setTimeout(connect, wait);
    wait = Math.min(wait * 2, LONGEST_WAIT_MS);
  });
}

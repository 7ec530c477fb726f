// The page: what the bundle can be asked, the three panels, the key, and Escape.

import { keepKey, key, request } from './api.js';
import { AskPanel } from './ask.js';
import { FilePanel } from './file.js';
import { LivePanel, overlayAddress } from './live.js';
import { setUpTabs } from './tabs.js';

const OWN_PROMPT = '';
const DEFAULT_TASK = 'asr';
const LOCAL = ['127.0.0.1', 'localhost', '[::1]'];
const $ = id => document.getElementById(id);
let bundle = { model: 'whisper-1', tasks: [], languages: [], max_upload_bytes: Infinity };

function asked() {
  const task = bundle.tasks.find(each => each.name === $('task').value);
  const words = $('prompt').value.trim();
  const prompt = !task ? words || DEFAULT_TASK : blank(task) ? `${task.name}:${words}` : task.name;
  const keywords = $('keywords').value.split(',').map(word => word.trim()).filter(Boolean);
  return { prompt, keywords, vad: !$('all-sound').checked, session: $('session').value.trim() };
}

function blank(task) {
  return task.prompt.includes('{}');
}

function showPrompt() {
  const task = bundle.tasks.find(each => each.name === $('task').value);
  $('prompt-field').hidden = Boolean(task) && !blank(task);
  $('prompt-field').firstElementChild.textContent = task ? `Filled into “${task.prompt.replace('{}', '…')}”` : 'Prompt';
}

function showOverlay() {
  const address = overlayAddress($('session').value.trim());
  $('overlay').href = address;
  $('overlay').textContent = address.replace(/#key=.*/, '#key=…');
}

function option(value, text, title = '') {
  const element = document.createElement('option');
  Object.assign(element, { value, textContent: text, title });
  return element;
}

async function load() {
  try {
    bundle = await (await request('/page/tasks')).json();
  } catch (error) {
    if (error.status === 401) askForKey();
    else $('live-state').textContent = `The server cannot be asked: ${error.message}`;
    return;
  }
  $('model').textContent = bundle.model;
  const tasks = bundle.tasks.filter(task => task.prompt !== '{}');
  $('task').replaceChildren(...tasks.map(task => option(task.name, task.name, task.prompt)), option(OWN_PROMPT, 'a prompt of your own'));
  $('task').value = tasks.some(task => task.name === DEFAULT_TASK) ? DEFAULT_TASK : tasks[0]?.name ?? OWN_PROMPT;
  const names = new Intl.DisplayNames(['en'], { type: 'language' });
  const languages = bundle.languages.map(code => option(code, names.of(code)));
  $('language').replaceChildren(...languages);
  $('language').value = 'en';
  $('tasks').replaceChildren(...tasks.filter(task => !blank(task)).map(task => option(task.name, task.prompt)));
  showPrompt();
  showOverlay();
}

function askForKey() {
  $('key-problem').textContent = key() ? 'The server did not take this key.' : '';
  $('key').value = '';
  $('key-dialog').showModal();
}

const live = new LivePanel(asked);
const file = new FilePanel(() => bundle);
const ask = new AskPanel(() => bundle);
setUpTabs(document.querySelector('[role=tablist]'));
$('session').value = LOCAL.includes(location.hostname) ? 'captions' : '';
$('session').addEventListener('input', showOverlay);
$('task').addEventListener('change', showPrompt);
$('key-form').addEventListener('submit', event => {
  event.preventDefault();
  keepKey($('key').value.trim());
  $('key-dialog').close();
  load();
});
$('key-dialog').addEventListener('cancel', () => {
  $('live-state').textContent = 'Without its key the server answers nothing: load this page again to give it.';
});
addEventListener('keydown', event => {
  if (event.key !== 'Escape') return;
  live.stop();
  file.stop();
  ask.stop();
});
for (const type of ['dragover', 'drop']) addEventListener(type, event => event.preventDefault());
load();

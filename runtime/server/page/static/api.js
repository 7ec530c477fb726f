// The server: its key, requests with errors as sentences, and sockets. The key comes from #key=... or from who is asked.

const STORED = 'auricle-key';
const PROTOCOL = 'auricle.live';
const KEY_PROTOCOL = 'openai-insecure-api-key.';

const given = new URLSearchParams(location.hash.slice(1)).get('key');
if (given) {
  sessionStorage.setItem(STORED, given);
  history.replaceState(null, '', location.pathname + location.search);
}

export function key() {
  return sessionStorage.getItem(STORED);
}

export function keepKey(value) {
  sessionStorage.setItem(STORED, value);
}

export function authorization() {
  return key() ? { authorization: `Bearer ${key()}` } : {};
}

// An answer that is no error. Throws an Error with the server's sentence and `status`.
export async function request(path, options = {}) {
  const answer = await fetch(path, { ...options, headers: { ...options.headers, ...authorization() } });
  if (!answer.ok) throw problem(answer.status, await answer.text());
  return answer;
}

// What a refusal says; body: as the API writes errors.
export function problem(status, body) {
  let sentence = `The server answered ${status}.`;
  try {
    sentence = JSON.parse(body).error.message;
  } catch {
    // not ours: a proxy's
  }
  return Object.assign(new Error(sentence), { status });
}

// A WebSocket of this server. Throws an Error when the key cannot be sent in one.
export function socket(path) {
  const address = new URL(path, location.href);
  address.protocol = location.protocol === 'https:' ? 'wss:' : 'ws:';
  try {
    return new WebSocket(address, key() ? [PROTOCOL, KEY_PROTOCOL + key()] : [PROTOCOL]);
  } catch {
    throw new Error('Browsers cannot send this key in a WebSocket: make one of letters, digits, - and _.');
  }
}

// The objects of a stream of server-sent events, text so far -> those that are complete in it, from a position on.
export function* events(text, from) {
  for (let at = from, end; (end = text.indexOf('\n\n', at)) >= 0; at = end + 2) {
    const data = text.slice(at, end).replace(/^data: /, '');
    yield { event: data === '[DONE]' ? null : JSON.parse(data), end: end + 2 };
  }
}

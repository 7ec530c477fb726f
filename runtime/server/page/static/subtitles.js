// Subtitles: rows of {start, end, text} in seconds -> text, SRT or VTT, and a file of them. Long rows become several cues.

const LINE = 42;
const KINDS = { txt: 'text/plain', srt: 'application/x-subrip', vtt: 'text/vtt' };

export function format(rows, kind) {
  const spoken = rows.filter(row => row.text);
  if (kind === 'txt') return spoken.map(row => `${row.text}\n`).join('');
  const cues = spoken.flatMap(cuesOf);
  if (kind === 'srt') {
    return cues.map((cue, i) => `${i + 1}\n${time(cue.start, ',')} --> ${time(cue.end, ',')}\n${cue.text}\n\n`).join('');
  }
  return 'WEBVTT\n\n' + cues.map(cue => `${time(cue.start, '.')} --> ${time(cue.end, '.')}\n${escaped(cue.text)}\n\n`).join('');
}

export function save(rows, kind, name) {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([format(rows, kind)], { type: `${KINDS[kind]};charset=utf-8` }));
  link.download = `${name}.${kind}`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// Two lines at a time, the row's time shared among them by their length.
function cuesOf({ start, end, text }) {
  const lines = wrapped(text);
  const cues = [];
  for (let i = 0; i < lines.length; i += 2) cues.push(lines.slice(i, i + 2).join('\n'));
  const total = cues.reduce((sum, cue) => sum + cue.length, 0);
  let read = 0;
  return cues.map(cue => {
    const from = start + (end - start) * read / total;
    read += cue.length;
    return { start: from, end: start + (end - start) * read / total, text: cue };
  });
}

function wrapped(text) {
  const lines = [];
  for (const word of text.split(/\s+/).filter(Boolean)) {
    const last = lines.at(-1);
    if (last !== undefined && last.length + 1 + word.length <= LINE) lines[lines.length - 1] = `${last} ${word}`;
    else lines.push(word);
  }
  return lines;
}

function time(seconds, point) {
  const ms = Math.round(seconds * 1000);
  const two = value => String(Math.floor(value)).padStart(2, '0');
  return `${two(ms / 3600000)}:${two(ms / 60000 % 60)}:${two(ms / 1000 % 60)}${point}${String(ms % 1000).padStart(3, '0')}`;
}

function escaped(text) {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

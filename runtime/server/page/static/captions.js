// Captions: events of a live session -> a band of two lines that roll up, and a log of all that is stable.

export class Band {
  // hides after seconds without news; 0: never
  constructor(element, hideAfter = 0) {
    this.element = element;
    this.hideAfter = hideAfter;
    const lines = element.appendChild(document.createElement('div'));
    this.last = lines.appendChild(document.createElement('p'));
    const now = lines.appendChild(document.createElement('p'));
    this.stable = now.appendChild(document.createElement('span'));
    this.unstable = now.appendChild(document.createElement('span'));
    this.unstable.className = 'unstable';
  }

  show({ type, stable, unstable, text, confident }) {
    if (type === 'caption') {
      this.stable.textContent = stable;
      this.unstable.textContent = stable && unstable ? ` ${unstable}` : unstable;
    } else if (type === 'final' || type === 'failed') {
      if (text) this.last.textContent = marked(text, confident);
      this.stable.textContent = this.unstable.textContent = '';
    } else {
      return;
    }
    this.hidden(!this.element.textContent);
    if (this.hideAfter) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => this.clear(), this.hideAfter * 1000);
    }
  }

  clear() {
    this.last.textContent = this.stable.textContent = this.unstable.textContent = '';
    this.hidden(true);
  }

  hidden(empty) {
    this.element.classList.toggle('empty', empty);
  }
}

// The server says `confident: false` of what the model itself doubts.
function marked(text, confident = true) {
  return text && !confident ? `${text} (?)` : text;
}

// Stable text as it comes, for readers and screen readers: what was read out is not read again unless it was revised.
export class Log {
  constructor(element, most = Infinity) {
    this.element = element;
    this.most = most;
    this.line = null;
  }

  show({ type, stable, text, start_s, confident }, offset = 0) {
    if (type === 'caption') this.write(stable, start_s + offset);
    if (type === 'final') this.write(marked(text, confident), start_s + offset);
    if (type === 'final' || type === 'failed') this.endLine();
  }

  endLine() {
    this.line = null;
  }

  write(text, at) {
    const follows = this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight < 40;
    if (!this.line) {
      if (!text) return;
      this.line = { text: '', element: line(at) };
      this.element.append(this.line.element);
      while (this.element.children.length > this.most) this.element.firstChild.remove();
    }
    const { element, text: before } = this.line;
    if (text.startsWith(before)) {
      if (text !== before) element.append(span(text.slice(before.length)));
    } else {
      for (const old of element.querySelectorAll('span')) old.remove();
      element.append(span(text));
    }
    this.line.text = text;
    if (follows) this.element.scrollTop = this.element.scrollHeight;
  }

  clear() {
    this.element.replaceChildren();
    this.endLine();
  }
}

function line(at) {
  const element = document.createElement('p');
  const time = element.appendChild(document.createElement('time'));
  time.textContent = clock(at);
  time.setAttribute('aria-hidden', 'true');
  return element;
}

function span(text) {
  const element = document.createElement('span');
  element.textContent = text;
  return element;
}

export function clock(seconds) {
  const whole = Math.floor(seconds);
  const parts = [Math.floor(whole / 60) % 60, whole % 60].map(part => String(part).padStart(2, '0'));
  return whole < 3600 ? parts.join(':') : `${Math.floor(whole / 3600)}:${parts.join(':')}`;
}

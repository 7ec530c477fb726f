// Drives a real browser over the page: node browser.mjs SCENARIO '{"url": ..., "clip": ...}' -> what was seen, as JSON.
// Packages come from $AURICLE_BROWSERS, browsers from the system.

import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const require = createRequire(join(process.env.AURICLE_BROWSERS, 'package.json'));
const puppeteer = require('puppeteer-core');
const AXE = await readFile(require.resolve('axe-core/axe.min.js'), 'utf8');
const PATIENCE = 40000;
const SERIOUS = ['serious', 'critical'];

const [scenario, options] = [process.argv[2], JSON.parse(process.argv[3])];
const { url, clip } = options;
const home = await mkdtemp(join(tmpdir(), 'auricle-browser-'));
const problems = [];

function launch() {
  if (scenario.startsWith('firefox')) {
    return puppeteer.launch({
      browser: 'firefox',
      executablePath: options.firefox,
      userDataDir: home,
      extraPrefsFirefox: {
        'media.navigator.permission.disabled': true,
        'media.autoplay.default': 0,
        'network.proxy.type': 0,
      },
    });
  }
  const sandbox = process.getuid() === 0 ? ['--no-sandbox'] : [];
  const sound = clip ? [`--use-file-for-fake-audio-capture=${clip}%noloop`] : [];
  return puppeteer.launch({
    executablePath: options.chromium,
    userDataDir: home,
    args: [
      ...sandbox,
      ...sound,
      '--use-fake-ui-for-media-stream',
      '--use-fake-device-for-media-stream',
      '--disable-gpu',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
      '--no-first-run',
      '--host-resolver-rules=MAP auricle.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost',
    ],
  });
}

async function opened(browser, address = url, hash = '') {
  const page = await browser.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.on('pageerror', error => problems.push(String(error.message)));
  page.on('console', message => {
    if (message.type() === 'error') problems.push(message.text());
  });
  page.on('requestfailed', request => {
    if (!request.url().startsWith('blob:')) problems.push(`failed: ${request.url()}`);  // a player reads no more than it needs
  });
  page.on('request', request => {
    if (!/^(?:blob|data):/.test(request.url()) && new URL(request.url()).host !== new URL(address).host) {
      problems.push(`foreign: ${request.url()}`);
    }
  });
  if (options.device_rate) await page.evaluateOnNewDocument(refuseToResample);
  await page.goto(address + hash);
  return page;
}

// As older Firefox: a microphone is heard at the device's rate alone.
function refuseToResample() {
  const connect = AudioContext.prototype.createMediaStreamSource;
  AudioContext.prototype.createMediaStreamSource = function (stream) {
    if (this.sampleRate === 16000) throw new DOMException('rates differ', 'NotSupportedError');
    return connect.call(this, stream);
  };
}

const text = (page, selector) => page.$eval(selector, element => element.textContent.trim());
const lines = page => page.$$eval('#log p', all => all.map(each => [...each.querySelectorAll('span')].map(span => span.textContent).join('')));
const said = (page, n = 1) => page.waitForFunction(wanted => document.querySelectorAll('#log p').length >= wanted
  && !document.querySelector('#live-save button').disabled, {}, n);
const state = (page, selector, words) => page.waitForFunction(
  (where, part) => document.querySelector(where).textContent.includes(part), {}, selector, words);

async function axe(page) {
  await page.evaluate(AXE);
  const { violations } = await page.evaluate(() => axe.run());
  return violations.filter(each => SERIOUS.includes(each.impact)).map(each => `${each.id}: ${each.nodes.map(node => node.html).join(' ')}`);
}

async function begun(browser) {
  const page = await opened(browser);
  await state(page, '#model', 'demo');
  await page.click('#microphone');
  return page;
}

const SCENARIOS = {
  async live(browser) {
    const page = await begun(browser);
    await page.waitForFunction(() => document.querySelector('#band .unstable').textContent, { polling: 20 });
    const hidden = await page.$eval('#band', band => band.getAttribute('aria-hidden'));
    await said(page);
    await new Promise(resolve => setTimeout(resolve, options.listen_ms));
    const level = await page.$eval('#level', meter => Number(meter.getAttribute('aria-valuenow')));
    const violations = await axe(page);
    await page.keyboard.press('Escape');
    await state(page, '#live-state', 'Stopped');
    return {
      lines: await lines(page),
      band: await text(page, '#band'),
      pressed: await page.$eval('#microphone', button => button.getAttribute('aria-pressed')),
      delay: await text(page, '#delay'),
      lost: await text(page, '#lost'),
      hidden, level, violations,
    };
  },

  async overlay(browser) {
    const viewer = await opened(browser, `${url}?overlay`);
    const page = await begun(browser);
    await viewer.bringToFront();
    await viewer.waitForFunction(() => document.querySelectorAll('#log p').length);
    await page.waitForFunction(() => !document.querySelector('#live-save button').disabled, { polling: 100 });
    await new Promise(resolve => setTimeout(resolve, 300));
    return {
      lines: await lines(viewer),
      band: await text(viewer, '#band'),
      background: await viewer.evaluate(() => getComputedStyle(document.documentElement).backgroundColor + getComputedStyle(document.body).backgroundColor),
      violations: await axe(viewer),
    };
  },

  async slow(browser) {
    const page = await opened(browser);
    await state(page, '#model', 'demo');
    await page.evaluate(() => {
      let held = 1e9;
      Object.defineProperty(WebSocket.prototype, 'bufferedAmount', { get: () => held });
      setTimeout(() => { held = 0; }, 1500);
    });
    await page.click('#microphone');
    await state(page, '#live-state', 'too slow');
    await page.waitForFunction(() => document.querySelector('#lost').textContent !== '0 s');
    await page.keyboard.press('Escape');
    await state(page, '#live-state', 'Stopped');
    return { lost: await text(page, '#lost') };
  },

  async insecure(browser) {
    const page = await opened(browser);
    await state(page, '#model', 'demo');
    return {
      secure: await page.evaluate(() => isSecureContext),
      notice: (await page.$eval('#insecure', element => element.innerText)).replace(/\s+/g, ' '),
      shown: await page.$eval('#insecure', element => !element.hidden),
      disabled: await page.$eval('#microphone', button => button.disabled),
      violations: await axe(page),
    };
  },

  async file(browser) {
    const page = await opened(browser);
    await state(page, '#model', 'demo');
    await page.click('#file-tab');
    await (await page.$('#file input[type=file]')).uploadFile(options.file);
    await state(page, '#file-state', 'Done');
    return {
      text: (await page.$$eval('#file-log p', all => all.map(each => each.lastChild.textContent))).join(' '),
      srt: await page.evaluate(async () => (await import('/page/subtitles.js')).format(
        [{ start: 1.5, end: 3, text: 'a < b' }, { start: 3600, end: 3604, text: 'word '.repeat(40).trim() }], 'srt')),
      vtt: await page.evaluate(async () => (await import('/page/subtitles.js')).format([{ start: 1.5, end: 3, text: 'a < b' }], 'vtt')),
      violations: await axe(page),
    };
  },

  async ask(browser) {
    const page = await opened(browser);
    await state(page, '#model', 'demo');
    await page.click('#ask-tab');
    await (await page.$('#ask input[type=file]')).uploadFile(options.file);
    for (const [n, question] of options.questions.entries()) {
      await page.waitForFunction(() => document.activeElement.id === 'question' && !document.querySelector('#question').value);
      await page.type('#question', question);
      await page.keyboard.press('Enter');
      await page.waitForFunction(wanted => document.querySelectorAll('#answers .answer').length === wanted
        && !document.querySelector('#ask-state').textContent, {}, n + 1);
    }
    return { answers: await page.$$eval('#answers .answer', all => all.map(each => each.textContent)), violations: await axe(page) };
  },

  async key(browser) {
    const page = await opened(browser);
    for (const each of ['wrong', options.key]) {
      await page.waitForSelector('dialog[open]');
      await page.type('#key', each);
      await page.keyboard.press('Enter');
      if (each === 'wrong') await state(page, '#key-problem', 'did not take');
    }
    await state(page, '#model', 'demo');
    await page.click('#microphone');
    await said(page);
    const linked = await opened(browser, url, `?overlay#key=${options.key}`);
    await linked.waitForFunction(() => document.querySelectorAll('#log p').length, { polling: 100 });
    return { lines: await lines(page), address: linked.url(), violations: await axe(page) };
  },

  async looks(browser) {
    const violations = [];
    for (const scheme of ['light', 'dark']) {
      const page = await opened(browser);
      await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
      for (const width of [1100, 360]) {
        await page.setViewport({ width, height: 740 });
        for (const tab of ['live', 'file', 'ask']) {
          await page.click(`#${tab}-tab`);
          for (const details of await page.$$('details')) await details.evaluate(element => { element.open = true; });
          violations.push(...await axe(page));
          if (await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)) violations.push(`${tab} is wider than ${width}`);
        }
      }
    }
    const page = await opened(browser);
    await page.focus('#live-tab');
    await page.keyboard.press('ArrowRight');
    const markup = await page.evaluate(async () => {
      const { Band, Log } = await import('/page/captions.js');
      const element = document.createElement('div');
      for (const Shown of [Band, Log]) {
        new Shown(element).show({ type: 'final', text: '<b>bold</b>', start_s: 0 });
      }
      return [element.querySelectorAll('b').length, element.textContent];
    });
    const after = await page.evaluate(() => [document.activeElement.id, document.querySelector('#file').hidden]);
    return { violations, after, markup };
  },

  async firefox(browser) {
    const page = await begun(browser);
    await page.waitForFunction(words => [...document.querySelectorAll('#log p')].some(
      each => [...each.querySelectorAll('span')].map(span => span.textContent).join('') === words), { polling: 100 }, options.words);
    await page.keyboard.press('Escape');
    await state(page, '#live-state', 'Stopped');
    return { violations: await axe(page) };
  },

  // For docs: what somebody sees while a sentence is spoken, its file, an overlay, a phone at night.
  async pictures(browser) {
    const shot = (page, name, more = {}) => page.screenshot({ path: join(options.out, `page-${name}.png`), ...more });
    const speaking = page => page.waitForFunction(n => document.querySelectorAll('#log p').length >= n
      && document.querySelector('#band .unstable').textContent && document.querySelector('#band p:last-child span').textContent.length > 25, { polling: 20 }, 3);
    const viewer = await opened(browser, `${url}?overlay&size=34`);
    await viewer.setViewport({ width: 960, height: 200 });
    const page = await begun(browser);
    await page.setViewport({ width: 900, height: 800 });
    await speaking(page);
    await shot(page, 'live');
    await viewer.bringToFront();
    await viewer.waitForFunction(() => document.querySelector('#band .unstable').textContent, { polling: 20 });
    await shot(viewer, 'overlay', { omitBackground: true });
    await page.bringToFront();
    await page.keyboard.press('Escape');
    await state(page, '#live-state', 'Stopped');

    await page.setViewport({ width: 390, height: 760 });
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }]);
    await page.click('#clear');
    await page.click('#microphone');
    await speaking(page);
    await shot(page, 'phone');
    await page.keyboard.press('Escape');
    await state(page, '#live-state', 'Stopped');

    await page.setViewport({ width: 900, height: 800 });
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'light' }]);
    await page.click('#ask-tab');
    await (await page.$('#ask input[type=file]')).uploadFile(options.file);
    for (const [n, question] of options.questions.entries()) {
      await page.waitForFunction(() => document.activeElement.id === 'question' && !document.querySelector('#question').value);
      await page.type('#question', question);
      await page.keyboard.press('Enter');
      await page.waitForFunction(wanted => document.querySelectorAll('#answers .answer').length === wanted
        && !document.querySelector('#ask-state').textContent, {}, n + 1);
    }
    await shot(page, 'ask');
    await page.click('#file-tab');
    await (await page.$('#file input[type=file]')).uploadFile(options.recording);
    await state(page, '#file-state', 'Done');
    await shot(page, 'file');
    return {};
  },
};

const browser = await launch();
try {
  console.log(JSON.stringify({ ...await SCENARIOS[scenario](browser), problems }));
} catch (error) {
  console.error(problems.join('\n'));
  throw error;
} finally {
  await browser.close();
  await rm(home, { recursive: true, force: true });
}

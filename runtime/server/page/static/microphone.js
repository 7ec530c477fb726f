// The microphone: permission -> blocks of 16-bit samples at 16 kHz, or at the device's rate where a browser does not resample.

const SAMPLE_RATE = 16000;
const WANTED = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };

const REASONS = {
  NotAllowedError: 'The microphone is not allowed: allow it for this page in the browser, then start again.',
  NotFoundError: 'No microphone was found: plug one in, then start again.',
  NotReadableError: 'The microphone cannot be opened: another program may have it.',
};

export class Microphone {
  // onblock({buffer, level}): for every block. onlost(): when the device is gone.
  constructor(onblock, onlost) {
    this.onblock = onblock;
    this.onlost = onlost;
  }

  get rate() {
    return this.context.sampleRate;
  }

  // Throws an Error that says what to do.
  async open() {
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ audio: WANTED });
    } catch (error) {
      throw new Error(REASONS[error.name] ?? `The microphone cannot be opened: ${error.message}`);
    }
    this.stream.getTracks()[0].addEventListener('ended', () => this.onlost());
    try {
      await this.connect({ sampleRate: SAMPLE_RATE });
    } catch {
      await this.context?.close();
      await this.connect({});
    }
    this.context.resume();  // some browsers start it suspended when the click is several awaits ago
  }

  async connect(options) {
    this.context = new AudioContext(options);
    await this.context.audioWorklet.addModule('/page/capture.js');
    const source = this.context.createMediaStreamSource(this.stream);
    const capture = new AudioWorkletNode(this.context, 'capture', { numberOfOutputs: 0 });
    capture.port.onmessage = ({ data }) => this.onblock(data);
    source.connect(capture);
  }

  close() {
    for (const track of this.stream?.getTracks() ?? []) track.stop();
    if (this.context?.state !== 'closed') this.context?.close();
    this.onblock = () => {};
  }
}

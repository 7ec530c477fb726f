// In the audio thread: blocks of 32 ms as 16-bit samples, the mean of the channels, and their level; buffers are handed over.

const BLOCK_SECONDS = 0.032;

class Capture extends AudioWorkletProcessor {
  constructor() {
    super();
    this.size = Math.round(sampleRate * BLOCK_SECONDS);
    this.clear();
  }

  clear() {
    this.block = new Int16Array(this.size);
    this.filled = 0;
    this.energy = 0;
  }

  process([channels]) {
    const n = channels.length ? channels[0].length : 0;
    for (let i = 0; i < n; i++) {
      let sum = 0;
      for (const channel of channels) sum += channel[i];
      const value = Math.max(-1, Math.min(1, sum / channels.length));
      this.energy += value * value;
      this.block[this.filled++] = Math.round(value * 32767);
      if (this.filled === this.size) {
        const { buffer } = this.block;
        this.port.postMessage({ buffer, level: 10 * Math.log10(this.energy / this.size + 1e-9) }, [buffer]);
        this.clear();
      }
    }
    return true;
  }
}

registerProcessor('capture', Capture);

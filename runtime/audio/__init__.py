"""Audio files and arrays -> waveforms: decode, resample, level, split."""

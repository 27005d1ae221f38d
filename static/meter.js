/**
 * How loud a stream is, for a level meter. No DOM.
 */

const FLOOR_DB = -60;
const TICK_MS = 50;

/**
 * Watch `stream` and call `onLevel(level)` about 20 times a second with 0 (silence) to 1 (full
 * scale, on a decibel scale from -60). Returns a function that stops watching.
 */
export function watchLevel(stream, onLevel) {
  const context = new AudioContext();
  const source = context.createMediaStreamSource(stream);
  const analyser = context.createAnalyser();
  analyser.fftSize = 2048;
  source.connect(analyser);
  const samples = new Float32Array(analyser.fftSize);

  // A timer, not animation frames: those stop in a tab that is not seen, and cost a draw each.
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(samples);
    onLevel(level(samples));
  }, TICK_MS);
  // Without a gesture (the interview went on after a reload) the context waits for the first one.
  if (context.state === "suspended") context.resume().catch(() => {});

  return () => {
    clearInterval(timer);
    source.disconnect();
    context.close().catch(() => {});
    onLevel(0);
  };
}

/** Root mean square of `samples` on a scale of 0 to 1. */
export function level(samples) {
  let sum = 0;
  for (const sample of samples) sum += sample * sample;
  const rms = Math.sqrt(sum / samples.length);
  if (rms === 0) return 0;
  const decibels = 20 * Math.log10(rms);
  return Math.min(1, Math.max(0, 1 - decibels / FLOOR_DB));
}

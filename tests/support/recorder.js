// Runs in a page before its own scripts. `recorder.follow(name, track)` keeps the samples of an audio
// track together with the wall-clock time at which each block of them came, so that what two pages
// of one machine recorded can be laid side by side.
(() => {
  const tracks = new Map();
  const now = () => performance.timeOrigin + performance.now();

  // A third of the samples is enough for sounds below 4 kHz, and much less to carry.
  const EACH = 3;
  function thinned(samples) {
    const pcm = new Int16Array(Math.floor(samples.length / EACH));
    for (let at = 0; at < pcm.length; at += 1) {
      const sum = samples[at * EACH] + samples[at * EACH + 1] + samples[at * EACH + 2];
      pcm[at] = Math.max(-1, Math.min(1, sum / EACH)) * 32767;
    }
    return pcm;
  }

  function follow(name, track) {
    const kept = { blocks: [], rate: 0, failure: null };
    tracks.set(name, kept);
    const reader = new MediaStreamTrackProcessor({ track, maxBufferSize: 500 }).readable.getReader();
    const next = async () => {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        const samples = new Float32Array(value.numberOfFrames);
        value.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
        kept.rate = value.sampleRate / EACH;
        value.close();
        kept.blocks.push({ at: now(), pcm: thinned(samples) });
      }
    };
    next().catch((error) => (kept.failure = String(error)));
  }

  function base64(blocks) {
    let text = "";
    for (const { pcm } of blocks) text += String.fromCharCode(...new Uint8Array(pcm.buffer));
    return btoa(text);
  }

  globalThis.recorder = {
    follow,
    now,
    // What came by the track from `since` on (milliseconds of the wall clock), or null.
    take(name, since) {
      const kept = tracks.get(name);
      if (!kept || kept.failure) return kept ?? null;
      const blocks = kept.blocks.filter((block) => block.at >= since);
      const times = blocks.map((block) => [block.at, block.pcm.length]);
      return { rate: kept.rate, times, pcm: base64(blocks) };
    },
    // The counters of what a peer connection hears, of the whole call so far.
    async figures(peer) {
      for (const one of (await peer.getStats()).values()) {
        if (one.type === "inbound-rtp" && one.kind === "audio") return { ...one };
      }
      return null;
    },
  };
})();

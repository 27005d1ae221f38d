// Runs in every page of a test before the page's own scripts. Only listens: it keeps the samples of
// the first local and the newest remote audio track of each peer connection, and every event that
// arrives by a data channel. MediaStreamTrackProcessor gives the very samples the page would play.
(() => {
  const tracks = {};
  const events = [];

  function follow(which, track) {
    const kept = { chunks: [], rate: 0, started: 0 };
    tracks[which] = kept;
    const reader = new MediaStreamTrackProcessor({ track, maxBufferSize: 500 }).readable.getReader();
    const next = async () => {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        if (kept.rate === 0) {
          kept.rate = value.sampleRate;
          kept.started = performance.now();
        }
        const samples = new Float32Array(value.numberOfFrames);
        value.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
        value.close();
        kept.chunks.push(Int16Array.from(samples, (x) => Math.max(-1, Math.min(1, x)) * 32767));
      }
    };
    next().catch((error) => events.push({ type: "test.capture_failed", message: String(error) }));
  }

  function base64(chunks) {
    let text = "";
    for (const chunk of chunks) {
      const bytes = new Uint8Array(chunk.buffer);
      for (let at = 0; at < bytes.length; at += 4096) {
        text += String.fromCharCode(...bytes.subarray(at, at + 4096));
      }
    }
    return btoa(text);
  }

  const prototype = globalThis.RTCPeerConnection?.prototype;
  if (prototype) {
    const { addTrack, createDataChannel } = prototype;
    prototype.addTrack = function (track, ...streams) {
      follow("local", track);
      this.addEventListener("track", (event) => follow("remote", event.track));
      return addTrack.call(this, track, ...streams);
    };
    prototype.createDataChannel = function (...values) {
      const channel = createDataChannel.apply(this, values);
      channel.addEventListener("message", (message) => events.push(JSON.parse(message.data)));
      return channel;
    };
  }

  globalThis.captured = {
    events,
    track(which) {
      const kept = tracks[which];
      if (!kept || kept.rate === 0) return null;
      return { pcm: base64(kept.chunks), rate: kept.rate, started: kept.started };
    },
    // The page's state, log and media counters, for the message of a failing test.
    async story() {
      const page = globalThis.interviewPeer;
      if (!page) return `not the interview page: ${document.title}`;
      const { stage, phase, media, failure, notice } = page.state;
      const lines = page.log.map((line) => `${line.at} ${line.text}`);
      const stats = (await page.peerConnection?.getStats()) ?? [];
      stats.forEach((one) => {
        const telling = ["inbound-rtp", "outbound-rtp", "candidate-pair"].includes(one.type);
        if (telling) lines.push(JSON.stringify(one));
      });
      return [JSON.stringify({ stage, phase, media, failure, notice }), ...lines].join("\n");
    },
  };
})();

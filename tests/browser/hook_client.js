// A front end written for the older signalling, step by step as it does things: it opens the socket,
// asks for a key with a session id of its own making while it is already sending its offer, sends no
// `init` and no candidates, configures the session in the beta's shape, and listens for the beta's
// transcript events alone. Returns once the first reply is done, with the call still going, or once
// its offer has failed and it has done what it does then.
async ({ serverUrl, sessionId }) => {
  const seen = {
    greeting: null, key: null, keyStatus: 0, keysAsked: 0, updated: null, text: "", deltas: 0,
    done: 0, types: [], errors: [],
  };
  const base = serverUrl.replace("ws://", "http://").replace(/\/ws.*$/, "");
  const finished = {};
  finished.promise = new Promise((resolve, reject) => Object.assign(finished, { resolve, reject }));
  setTimeout(() => finished.reject(new Error(`no reply: ${JSON.stringify(seen)}`)), 25000);

  const askForKey = async () => {
    const response = await fetch(`${base}/api/generate-ephemeral-key`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ sessionId, voice: "alloy", model: "gpt-4o-realtime-preview-2024-12-17" }),
    });
    seen.keysAsked += 1;
    seen.keyStatus = response.status;
    seen.key = await response.json();
  };

  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: true, noiseSuppression: true, sampleRate: 48000 },
  });
  const peer = new RTCPeerConnection();
  for (const track of stream.getTracks()) peer.addTrack(track, stream);
  const audio = new Audio();
  audio.autoplay = true;
  peer.ontrack = (event) => { audio.srcObject = event.streams[0]; };
  const channel = peer.createDataChannel("oai-events", { ordered: true });
  window.hook = { peer, stream, audio, channel };

  channel.onopen = () => {
    channel.send(JSON.stringify({
      type: "session.update",
      session: {
        instructions: "You are a helpful interviewer.",
        voice: "alloy",
        input_audio_transcription: { model: "whisper-1" },
        turn_detection: {
          type: "server_vad", threshold: 0.5, prefix_padding_ms: 300, silence_duration_ms: 800,
        },
      },
    }));
  };
  channel.onmessage = (message) => {
    const event = JSON.parse(message.data);
    seen.types.push(event.type);
    if (event.type === "session.updated") seen.updated = event.session;
    if (event.type === "response.audio_transcript.delta") {
      seen.deltas += 1;
      seen.text += event.delta;
    }
    if (event.type === "response.audio_transcript.done") seen.transcript = event.transcript;
    if (event.type === "error") seen.errors.push(event.error);
    if (event.type === "response.done") seen.done += 1;
    if (event.type === "output_audio_buffer.stopped") finished.resolve();
  };

  const socket = new WebSocket(serverUrl);
  window.hook.socket = socket;
  socket.onmessage = async (message) => {
    const data = JSON.parse(message.data);
    if (data.type === "session") {
      seen.greeting = data;
      await askForKey();
    } else if (data.type === "sdp_answer") {
      await peer.setRemoteDescription(data.answer);
    } else if (data.type === "error") {
      seen.errors.push(data);
      // It takes any failed offer for a key that has expired, asks for another, and waits.
      if (data.code === "SDP_EXCHANGE_FAILED") {
        await askForKey();
        finished.resolve();
      }
    }
  };
  socket.onopen = async () => {
    const offer = await peer.createOffer();
    await peer.setLocalDescription(offer);
    socket.send(JSON.stringify({ type: "sdp_offer", offer }));
  };

  await finished.promise;
  return seen;
}

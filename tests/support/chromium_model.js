// The page that plays the interviewing model: answers each offer with a looped sound, opens no
// channel of its own, and keeps what it hears and the events it gets.
const context = new AudioContext({ sampleRate: 48000 });
const calls = new Map();

async function play(address) {
  const file = await (await fetch(address)).arrayBuffer();
  const buffer = await context.decodeAudioData(file);
  const source = new AudioBufferSourceNode(context, { buffer, loop: true });
  const out = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
  source.connect(out);
  source.start();
  return { source, track: out.stream.getAudioTracks()[0], stream: out.stream };
}

function gathered(peer) {
  return new Promise((resolve) => {
    const look = () => peer.iceGatheringState === "complete" && resolve();
    peer.addEventListener("icegatheringstatechange", look);
    look();
  });
}

globalThis.model = {
  async answer(name, offer, address) {
    await context.resume();
    const { source, track, stream } = await play(address);
    const peer = new RTCPeerConnection();
    const call = { peer, source, channel: null, events: [] };
    calls.set(name, call);
    recorder.follow(`${name}/sent`, track);
    peer.ontrack = (event) => {
      recorder.follow(`${name}/heard`, event.track);
      // A remote track is rendered only while something plays it.
      const audio = document.body.appendChild(document.createElement("audio"));
      audio.srcObject = new MediaStream([event.track]);
      audio.play();
    };
    peer.ondatachannel = ({ channel }) => {
      call.channel = channel;
      channel.onmessage = ({ data }) => call.events.push(JSON.parse(data));
    };
    await peer.setRemoteDescription({ type: "offer", sdp: offer });
    peer.addTrack(track, stream);
    await peer.setLocalDescription(await peer.createAnswer());
    await gathered(peer);
    return peer.localDescription.sdp;
  },
  hangUp(name) {
    const call = calls.get(name);
    call?.source.stop();
    call?.peer.close();
  },
  say: (name, event) => calls.get(name).channel.send(JSON.stringify(event)),
  events: (name) => calls.get(name).events,
  figures: (name) => recorder.figures(calls.get(name).peer),
};

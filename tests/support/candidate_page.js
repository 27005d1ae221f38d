// Runs in the interview page before its own scripts, after recorder.js: records what the page sends
// ("sent") and what it hears ("heard"). The microphone comes without the browser's sound
// processing, which would take planted sounds for noise or echo; the network is what is tested.
(() => {
  const devices = navigator.mediaDevices;
  const open = devices.getUserMedia.bind(devices);
  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  devices.getUserMedia = () => open({ audio: plain });

  const { addTrack } = RTCPeerConnection.prototype;
  RTCPeerConnection.prototype.addTrack = function (track, ...streams) {
    recorder.follow("sent", track);
    this.addEventListener("track", (event) => recorder.follow("heard", event.track));
    return addTrack.call(this, track, ...streams);
  };
})();

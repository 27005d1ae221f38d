// What a front end written for OpenAI does with OpenAI's own SDK, but for the address it names.
import { OpenAIRealtimeWebRTC, RealtimeAgent, RealtimeSession } from "@openai/agents-realtime";

const seen = { connectedAfter: 0, history: [], errors: [] };
let session = null;

globalThis.front = {
  seen,

  // `insecure` lets the SDK take a key that does not begin with `ek_`, as its users may.
  async begin({ url, apiKey, instructions, insecure }) {
    const agent = new RealtimeAgent({ name: "Page", instructions });
    const transport = insecure ? new OpenAIRealtimeWebRTC({ useInsecureApiKey: true }) : "webrtc";
    session = new RealtimeSession(agent, { transport });
    session.on("history_updated", (history) => {
      seen.history = history
        .filter((item) => item.type === "message")
        .map(({ role, status, content }) => ({
          role,
          status,
          text: content.map((part) => part.transcript ?? part.text ?? "").join(" "),
        }));
    });
    session.on("error", (error) => seen.errors.push(JSON.stringify(error)));
    const began = performance.now();
    await session.connect({ apiKey, url });
    seen.connectedAfter = performance.now() - began;
    return session.transport.callId;
  },

  interrupt() {
    session.interrupt();
  },

  status() {
    return session.transport.status;
  },

  close() {
    session.close();
  },
};

// Unmodified Yjs clients, driven by lines of JSON: {id, do, …} on stdin, {id, …} on stdout.
import { createInterface } from "node:readline";
import * as hocuspocus4 from "@hocuspocus/provider";
import * as hocuspocus2 from "hocuspocus-2";
import * as hocuspocus3 from "hocuspocus-3";
import WebSocket from "ws";
import * as yWebsocket3 from "y-websocket";
import * as yWebsocket1 from "y-websocket-1";
import * as yWebsocket2 from "y-websocket-2";
import * as Y from "yjs";

const clients = new Map();
const sockets = new Map(); // one Hocuspocus socket per person and version

// A line on which edits come twice, or after what was sent later, in both directions.
class Shaky extends WebSocket {
  send(data) {
    this.shake(data, () => this.readyState === WebSocket.OPEN && super.send(data));
  }
  emit(name, ...rest) {
    if (name !== "message") return super.emit(name, ...rest);
    this.shake(rest[0], () => super.emit(name, ...rest));
    return true;
  }
  shake(data, pass) {
    const [plane, step] = new Uint8Array(data instanceof ArrayBuffer ? data : data.buffer, data.byteOffset ?? 0, 2);
    if (plane !== 0 || step !== 2 || Math.random() < 0.6) return pass();
    if (Math.random() < 0.5) pass();
    setTimeout(pass, Math.random() * 60);
  }
}

class YWebsocket {
  constructor({ WebsocketProvider, polyfill = WebSocket }, { url, session, document, token }) {
    this.doc = new Y.Doc();
    this.pending = new Set();
    const path = `${url.replace("http", "ws")}/api/v1/sessions/${session}/documents`;
    this.provider = new WebsocketProvider(path, document, this.doc, {
      params: { token },
      WebSocketPolyfill: polyfill,
      disableBc: true,
      maxBackoffTime: 500,
    });
    this.provider.on("connection-close", (event) => (this.closed = { code: event?.code, reason: event?.reason }));
  }
  get synced() {
    return this.provider.synced && this.provider.wsconnected;
  }
  connect() {
    this.provider.connect();
  }
  disconnect() {
    this.provider.disconnect();
  }
  destroy() {
    this.provider.destroy();
  }
  move(url) {
    this.provider.disconnect();
    this.provider.serverUrl = this.provider.serverUrl.replace(/ws:\/\/[^/]+/, url.replace("http", "ws"));
    this.provider.connect();
  }
  get saved() {
    return this.synced;
  }
}

class Hocuspocus {
  constructor({ HocuspocusProvider, HocuspocusProviderWebsocket }, { url, session, document, token, name }) {
    this.doc = new Y.Doc();
    if (!sockets.has(name)) {
      sockets.set(
        name,
        new HocuspocusProviderWebsocket({
          url: `${url.replace("http", "ws")}/api/v1/sessions/${session}/sync`,
          // Node's own, since the provider closes sockets that are still opening, which `ws` takes for an error.
          WebSocketPolyfill: globalThis.WebSocket,
          delay: 100,
          minDelay: 50,
          maxDelay: 500,
        }),
      );
    }
    this.socket = sockets.get(name);
    this.provider = new HocuspocusProvider({
      websocketProvider: this.socket,
      name: document,
      document: this.doc,
      token,
      onAuthenticated: (event) => (this.scope = event?.scope),
      onClose: ({ event }) => (this.closed = { code: event.code, reason: String(event.reason ?? "") }),
    });
    if (HocuspocusProvider !== hocuspocus2.HocuspocusProvider) this.provider.attach();
  }
  get synced() {
    return this.provider.synced && this.socket.status === "connected";
  }
  get saved() {
    return this.synced && this.provider.unsyncedChanges === 0;
  }
  connect() {
    // The provider takes itself for connected until the close has been heard, and ignores a connect before.
    if (this.socket.leaving && this.socket.status === "connected") setTimeout(() => this.connect(), 5);
    else {
      this.socket.leaving = false;
      this.socket.connect();
    }
  }
  disconnect() {
    this.socket.leaving = true;
    this.socket.disconnect();
  }
  move(url) {
    this.socket.configuration.url = this.socket.configuration.url.replace(/ws:\/\/[^/]+/, url.replace("http", "ws"));
    this.disconnect();
    this.connect();
  }
  destroy() {
    this.provider.destroy();
    this.socket.destroy();
  }
}

const DIALECTS = {
  "y-websocket": [YWebsocket, yWebsocket3],
  "y-websocket over a line that repeats and reorders": [YWebsocket, { ...yWebsocket3, polyfill: Shaky }],
  "y-websocket-1": [YWebsocket, yWebsocket1],
  "y-websocket-2": [YWebsocket, yWebsocket2],
  hocuspocus: [Hocuspocus, hocuspocus4],
  "hocuspocus-2": [Hocuspocus, hocuspocus2],
  "hocuspocus-3": [Hocuspocus, hocuspocus3],
};

const state = (client) => {
  const text = client.doc.getText("content");
  const awareness = client.provider.awareness;
  return {
    text: text.length > 1_000_000 ? "" : text.toString(), // what is very long is known by its length
    size: text.length,
    synced: client.synced,
    saved: client.saved,
    unsynced: client.provider.unsyncedChanges ?? 0,
    scope: client.scope ?? client.provider.authorizedScope ?? null, // 2.x says it there alone
    closed: client.closed ?? null,
    vector: Buffer.from(Y.encodeStateVector(client.doc)).toString("hex"),
    people: awareness === null ? [] : [...awareness.getStates()].map(([id, s]) => ({ id, own: id === client.doc.clientID, ...s })),
    files: client.doc.getMap("files").toJSON(),
  };
};

const actions = {
  open(command) {
    const [Client, library] = DIALECTS[command.dialect];
    clients.set(command.client, new Client(library, command));
  },
  insert({ client, at, text }) {
    const content = clients.get(client).doc.getText("content");
    let place = Math.min(at, content.length);
    // Never inside a character: no editor does that, and Yjs and yrs replace the halves of one differently.
    if (/[\ud800-\udbff]/.test(content.toString()[place - 1] ?? "")) place -= 1;
    content.insert(place, text);
  },
  remove({ client, at, length }) {
    const content = clients.get(client).doc.getText("content");
    const from = Math.min(at, content.length);
    content.delete(from, Math.min(length, content.length - from));
  },
  // Deletes the last character if it is one of `letters`; looking and deleting are one step here.
  trim({ client, letters }) {
    const content = clients.get(client).doc.getText("content");
    const text = content.toString();
    if (letters.includes(text.at(-1))) content.delete(text.length - 1, 1);
  },
  file({ client, id, fields }) {
    const { doc } = clients.get(client);
    const files = doc.getMap("files");
    doc.transact(() => {
      const node = files.get(id) ?? files.set(id, new Y.Map());
      for (const [name, value] of Object.entries(fields)) node.set(name, value);
    });
  },
  presence({ client, state: own }) {
    clients.get(client).provider.awareness.setLocalState(own);
  },
  // Connects to another server from now on, as a proxy would after the one before has gone.
  move({ client, url }) {
    clients.get(client).move(url);
  },
  async type({ client, letters, pause }) {
    const content = clients.get(client).doc.getText("content");
    for (let n = 0; n < letters; n += 1) {
      content.insert(content.length, String(n % 10));
      await new Promise((done) => setTimeout(done, pause));
    }
  },
  connect: ({ client }) => clients.get(client).connect(),
  disconnect: ({ client }) => clients.get(client).disconnect(),
  destroy({ client }) {
    clients.get(client).destroy();
    clients.delete(client);
  },
  state: ({ client }) => state(clients.get(client)),
  // What has come and cannot be taken in yet: after which ids.
  waiting({ client }) {
    const { pendingStructs, pendingDs } = clients.get(client).doc.store;
    const size = pendingStructs?.update.length ?? 0;
    return { structs: size, missing: [...(pendingStructs?.missing ?? [])], deletions: pendingDs?.length ?? 0 };
  },
};

createInterface({ input: process.stdin }).on("line", async (line) => {
  const command = JSON.parse(line);
  let answer;
  try {
    const found = actions[command.do](command);
    answer = { id: command.id, ok: (found instanceof Promise ? await found : found) ?? null };
  } catch (error) {
    answer = { id: command.id, error: String(error?.stack ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
});
process.stdin.on("end", () => process.exit(0));
